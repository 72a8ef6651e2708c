"""Two sketches compared: against SciPy on the same rows, and what is by chance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from raywf.core.drift import ColumnDrift
from raywf.core.records import Column
from raywf.monitor.compare import compare_sketches, control
from raywf.monitor.drift import bin_values, measure_drift
from raywf.snapshots.profile import profile_column
from raywf.snapshots.sketch import sketch_column

RNG = np.random.default_rng(0)
X = RNG.normal(size=20_000)


def compared(before: object, after: object, kind: str = "number") -> ColumnDrift:
    column = Column(name="x", kind=kind)  # type: ignore[arg-type]
    made = [sketch_column(pa.chunked_array([pa.array(v)]), column) for v in (before, after)]
    return compare_sketches(made[0], made[1])


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (0.0, 1.4), (3.0, 0.2)])
def test_numbers_beside_scipy(shift: float, scale: float) -> None:
    """Distance and statistic are those of all rows, but for the sketches' error."""
    after = RNG.normal(shift, scale, size=15_000)
    found = compared(X, after)
    exact = stats.ks_2samp(X, after)
    assert found.statistic == pytest.approx(exact.statistic, abs=0.002)
    assert found.distance == pytest.approx(stats.wasserstein_distance(X, after) / X.std(), abs=0.01)
    assert found.p >= exact.pvalue * 0.9


def test_the_index_is_the_monitors() -> None:
    """A window of the monitor and a sketch tell one and the same index."""
    before, after = X[:900].round(2), (X[900:1500] * 1.3).round(2)
    profile = profile_column(pa.chunked_array([pa.array(before)]), Column(name="x", kind="number"))
    assert compared(before, after).psi == pytest.approx(
        measure_drift(bin_values(after, profile), profile).psi
    )


def test_categories_beside_scipy() -> None:
    """The distance and the test are those of the counts."""
    before, after = RNG.choice(list("abc"), 5_000), RNG.choice(list("abcd"), 4_000)
    found = compared(before, after, "category")
    counts = np.array([[int((side == v).sum()) for v in "abcd"] for side in (before, after)])
    assert found.js == pytest.approx(jensenshannon(counts[0], counts[1], base=2))
    square = stats.chi2_contingency(counts, correction=False)
    assert found.p == pytest.approx(square.pvalue, abs=1e-12)
    assert found.statistic == pytest.approx(stats.contingency.association(counts, method="cramer"))
    assert found.unknown == pytest.approx((after == "d").mean())


def test_missing_values_alone_are_drift() -> None:
    """The values that are there are alike; the effect is the change of the missing rate."""
    gaps = X.copy()
    gaps[::4] = np.nan
    found = compared(X, gaps)
    assert found.effect == pytest.approx(0.25)
    assert found.js < 0.02
    assert found.p < 1e-100


@pytest.mark.parametrize(("rows", "gone"), [(2_000, 2_000), (100, 30), (4, 4)])
def test_missing_values_in_a_small_table_are_drift(rows: int, gone: int) -> None:
    """Beside a large one that has none, where so few rows are expected to be missing."""
    values = X[:rows].copy()
    values[:gone] = np.nan
    assert compared(X, values).p < 1e-6


def test_a_category_that_was_rare_is_drift() -> None:
    """Exactly: however small the table is in which it is common, and not where it is as rare."""
    before = ["a"] * 9_990 + ["b"] * 10
    assert compared(before, ["a"] * 60 + ["b"] * 40, "category").p < 1e-20
    assert compared(before, ["a"] * 99 + ["b"], "category").p > 0.05
    assert compared(before, ["a"] * 60 + ["new"] * 40, "category").p < 1e-20
    exact = stats.fisher_exact([[9_990, 10], [97, 3]]).pvalue
    assert compared(before, ["a"] * 97 + ["b"] * 3, "category").p == pytest.approx(2 * exact, rel=0.01)


def test_rows_beyond_the_range() -> None:
    """One row of a thousand beyond is a thousandth, though no statistic feels it."""
    values = np.arange(1000.0)
    found = compared(values, np.append(values[:-1], 5_000.0))
    assert found.outside == pytest.approx(0.001)
    assert found.q > 0.9


@pytest.mark.parametrize(("before", "after"), [([1.0, 2.0], []), ([], [1.0]), ([], []), ([None], [2.0])])
def test_no_values_on_a_side(before: list[float], after: list[float]) -> None:
    """Nothing is said of a shape that is not there."""
    found = compared(pa.array(before, pa.float64()), pa.array(after, pa.float64()))
    assert (found.js, found.psi, found.distance, found.unknown) == (0.0, 0.0, 0.0, None)


def test_a_constant_that_becomes_another() -> None:
    """Without a spread to measure by, the distance is one."""
    found = compared([1.0] * 50, [2.0] * 50)
    assert (found.distance, found.js, found.outside) == (1.0, 1.0, 1.0)


def test_kinds_do_not_mix() -> None:
    """A number is not compared with a category."""
    column = Column(name="x", kind="category")
    number = sketch_column(pa.chunked_array([[1.0]]), Column(name="x", kind="number"))
    with pytest.raises(TypeError, match="is of kind number, not category"):
        compare_sketches(number, sketch_column(pa.chunked_array([["a"]]), column))


def test_false_discoveries_are_held() -> None:
    """Of 400 columns that did not move, none or few stand out; without control some twenty would."""
    rng = np.random.default_rng(5)
    pairs = rng.normal(size=(400, 2, 800))
    found = control([compared(a, b) for a, b in pairs])
    assert sum(c.p < 0.05 for c in found) > 5
    assert sum(c.q < 0.05 for c in found) <= 1
    assert [c.effect for c in found] == sorted((c.effect for c in found), reverse=True)
