"""`raywf demo`: the whole loop on the 2013 flights out of New York. The only place that knows of flights."""
