"""The one text under which a category's or class' value is known, from snapshot to monitor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_CATEGORIES = 500  # of a column that models tell apart, the commonest


def category_text(value: Any) -> str:
    """Write flags as true/false and whole numbers without a point.

    >>> category_text(True), category_text(3.0), category_text(1.5), category_text("x")
    ('true', '3', '1.5', 'x')

    Raises:
        TypeError: if the value is no text, flag or number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError(f"not a category: {value!r}")


def spellings(known: Sequence[str]) -> dict[str, int]:
    """Return the places of categories by text, with the other spellings that are read as the same one.

    >>> spellings(["3", "x"])["3.0"], spellings(["false", "true"])["True"]
    (0, 1)
    """
    places = {text: i for i, text in enumerate(known)}
    for text, place in list(places.items()):
        others = (text.capitalize(), text.upper()) if set(known) <= {"true", "false"} else (f"{text}.0",)
        for other in others:
            places.setdefault(other, place)
    return places
