"""Frozen records, settings and their one loader, errors, clock and ids: what every step shares."""
