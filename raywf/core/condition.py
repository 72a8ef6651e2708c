"""A condition over named triggers: ``loss or (estimate and drift)``.

The grammar, where "and" binds more tightly than "or"::

    either = both { "or" both }
    both   = one { "and" one }
    one    = NAME | "(" either ")"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from raywf.core.errors import did_you_mean

_WORD = re.compile(r"[()]|[^\s()]+")
_JOINS = ("and", "or")
_MOST_WORDS = 100
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """A name, or two and more parts that are joined by one word."""

    kind: Literal["name", "and", "or"]
    name: str = ""
    parts: tuple[Condition, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name once, in the order of first sight."""
        if self.kind == "name":
            return (self.name,)
        return tuple(dict.fromkeys(name for part in self.parts for name in part.names))

    def held_by(self, true: Collection[str]) -> tuple[str, ...]:
        """Return the names by which it holds, in its order; of alternatives those of the first that does.

        >>> condition = parse_condition("loss or (estimate and drift)", ["loss", "estimate", "drift"])
        >>> condition.held_by({"drift", "estimate"})
        ('estimate', 'drift')
        >>> condition.held_by({"drift"})
        ()
        """
        if self.kind == "name":
            return (self.name,) if self.name in true else ()
        found = [part.held_by(true) for part in self.parts]
        if self.kind == "or":
            return next((names for names in found if names), ())
        return tuple(dict.fromkeys(name for names in found for name in names)) if all(found) else ()

    def __str__(self) -> str:
        if self.kind == "name":
            return self.name
        texts = [f"({part})" if part.kind == "or" else str(part) for part in self.parts]
        return f" {self.kind} ".join(texts)


def join(kind: Literal["and", "or"], parts: Sequence[Condition]) -> Condition:
    """Return the parts as one condition; parts that are joined by the same word are taken in.

    >>> str(join("and", [Condition("name", "loss"), Condition("name", "drift")]))
    'loss and drift'
    """
    if len(parts) == 1:
        return parts[0]
    flat = [inner for part in parts for inner in (part.parts if part.kind == kind else (part,))]
    return Condition(kind, parts=tuple(flat))


def parse_condition(text: str, names: Collection[str]) -> Condition:
    """Read a condition over `names`.

    >>> str(parse_condition("(loss) or estimate and (drift or age)", ["loss", "estimate", "drift", "age"]))
    'loss or estimate and (drift or age)'

    Raises:
        ValueError: with the word that is wrong and what is known.
    """
    words = _WORD.findall(text)
    if len(words) > _MOST_WORDS or words.count("(") > _DEEPEST:
        raise ValueError(f"it has more than {_MOST_WORDS} words or {_DEEPEST} parentheses")
    reader = _Reader(words, names)
    found = reader.either()
    if (rest := reader.peek()) is not None:
        raise ValueError(
            "')' closes nothing" if rest == ")" else f"'and' or 'or' is wanted before {rest!r}, no other word"
        )
    return found


class _Reader:
    def __init__(self, words: Sequence[str], names: Collection[str]) -> None:
        self._words, self._names, self._at = words, names, 0

    def peek(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def either(self) -> Condition:
        parts = [self._both()]
        while self._takes("or"):
            parts.append(self._both())
        return join("or", parts)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._takes("and"):
            parts.append(self._one())
        return join("and", parts)

    def _one(self) -> Condition:
        word = self.peek()
        before = f" after {self._words[self._at - 1]!r}" if self._at else ""
        if word is None or word == ")" or word in _JOINS:
            raise ValueError(f"a trigger is wanted{before}, got {'nothing' if word is None else repr(word)}")
        self._at += 1
        if word == "(":
            inner = self.either()
            if not self._takes(")"):
                raise ValueError(
                    f"')' is wanted, got {'nothing' if self.peek() is None else repr(self.peek())}"
                )
            return inner
        if word not in self._names:
            raise ValueError(f"unknown trigger {word!r}{did_you_mean(word, self._names)}")
        return Condition("name", word)

    def _takes(self, word: str) -> bool:
        taken = self.peek() == word
        self._at += taken
        return taken
