"""Money for people: cents, and more digits for what is less than ten of them."""

from __future__ import annotations

from math import floor, log10


def format_usd(usd: float) -> str:
    """Return an amount as text; small ones keep two digits that say something.

    >>> [format_usd(x) for x in (1234.5, 0.127, 0.0504, 0.0012, 0.000038, 0.0000001, 0)]
    ['$1,234.50', '$0.13', '$0.0504', '$0.0012', '$0.000038', '<$0.000001', '$0']
    """
    if usd == 0:
        return "$0"
    if usd >= 0.1:
        return f"${usd:,.2f}"
    if usd < 1e-6:
        return "<$0.000001"
    return f"${usd:.{min(6, max(4, 1 - floor(log10(usd))))}f}"
