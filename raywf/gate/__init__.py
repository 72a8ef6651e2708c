"""Champion and challenger on the same rows that neither was fitted on: a verdict with figures."""
