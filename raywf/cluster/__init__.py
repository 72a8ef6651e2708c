"""Settings to the files that make a Ray cluster, and such files to what they make and cost."""
