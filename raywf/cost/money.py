"""Money for people: cents, and four digits below ten cents."""

from __future__ import annotations


def format_usd(usd: float) -> str:
    """Return an amount as text.

    >>> [format_usd(x) for x in (1234.5, 0.127, 0.0012, 0.00001, 0)]
    ['$1,234.50', '$0.13', '$0.0012', '<$0.0001', '$0']
    """
    if usd == 0:
        return "$0"
    if usd < 0.00005:
        return "<$0.0001"
    return f"${usd:.4f}" if usd < 0.1 else f"${usd:,.2f}"
