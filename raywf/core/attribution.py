"""What a change of the loss comes from: inputs that moved, and slices that got worse."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What the mean loss would have changed by, had only a column's mix of values moved.

    `error` is its standard error, `q` the false discovery rate over all columns at which it is not zero.
    """

    column: str
    change: float
    error: float
    q: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FallenSlice:
    """A column's value, or bin of values, and its mean bounded loss `before` and `after`.

    `rows_before` and `rows` are those of both times. `change` is what its rise adds to the loss of all
    rows, `excess` how far that rise lies above the others', `q` the false discovery rate over all slices at
    which it does.
    """

    column: str
    value: str
    rows_before: int
    rows: int
    before: float
    after: float
    change: float
    excess: float
    q: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where a change of the mean bounded loss comes from; `shifts` and `slices` by size, the largest first.

    Each says what one column, or slice, would account for by itself: they overlap, and do not add up.
    """

    rows_before: int
    rows: int
    before: float
    after: float
    shifts: tuple[Shift, ...] = ()
    slices: tuple[FallenSlice, ...] = ()

    @property
    def change(self) -> float:
        """How far the loss rose."""
        return self.after - self.before

    def told(self, *, rate: float = 0.05, most: int = 3) -> tuple[str, ...]:
        """Return in words what stands out at a false discovery rate: a line a cause, the largest first."""
        lines = [f"the loss went from {self.before:.4f} to {self.after:.4f} ({self.rows:,} labelled rows)"]
        shifts = [s for s in self.shifts if s.q < rate and s.change > 0]
        lines += [f"{s.column} moved, which alone makes {s.change:+.4f}" for s in shifts[:most]]
        slices = [s for s in self.slices if s.q < rate and s.excess > 0]
        lines += [
            f"where {s.column} is {s.value} it rose from {s.before:.4f} to {s.after:.4f}, more than "
            f"elsewhere ({s.rows:,} rows, {s.change:+.4f} of the whole)"
            for s in slices[:most]
        ]
        if len(lines) == 1 and self.change > 0:
            lines.append("it rose alike everywhere: no column's shift and no slice stands out")
        return tuple(lines)
