"""Tables and an `as_of` to an immutable, validated, point-in-time correct `Snapshot`."""
