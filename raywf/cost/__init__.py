"""Resource use and a price table to money."""
