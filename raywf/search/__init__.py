"""A snapshot and a budget to a sweep: trials on Ray Tune, an ensemble, its bundles."""
