"""Requests to predictions on Ray Serve; the alias to the bundle in memory; the two-phase swap."""
