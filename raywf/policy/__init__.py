"""`Evidence` to a `Decision` with its reasons: no clock, no files, no cluster."""
