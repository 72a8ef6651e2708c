"""Models of the user's own, as members of bundles."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fit, write

from raywf.core.errors import BundleError
from raywf.core.own import OwnCode
from raywf.models.bundle import load_bundle
from raywf.models.family import Rows, answer
from raywf.models.own import OwnFamily

SOURCE = """
import json
import numpy as np

class Mean:
    def __init__(self, shrink=0.0):
        self.shrink, self.rounds, self.seen = shrink, 0, []

    def fit(self, X, y, valid=None, rung=0):
        self.mean = float(y.mean()) * (1 - self.shrink) / (1 + 1 / (rung or 100))
        self.rounds += rung
        self.seen.append((rung, valid is not None))

    def predict(self, X):
        return np.full(len(X), self.mean)

    def save(self, folder):
        (folder / "mean.json").write_text(json.dumps(self.mean))

    def load(self, folder):
        self.mean = json.loads((folder / "mean.json").read_text())

class Shouts(Mean):
    def fit(self, X, y, valid=None):
        self.mean = float(y.mean())
        self.seen.append((X.column_names, [str(t) for t in X.schema.types], valid[0].num_rows))

    def predict(self, X):
        return np.array([self.mean + (v is not None and v.isupper()) for v in X["lane"].to_pylist()])

class Flat(Mean):
    def predict(self, X):
        return np.zeros((len(X), 3))

def make(**params):
    return Mean(**params)

class Mute:
    def fit(self, X, y):
        pass
"""


def own(name: str, rungs: tuple[int, ...] = ()) -> OwnFamily:
    """A family of the text above."""
    return OwnFamily("mine", OwnCode(file="own.py", name=name, source=SOURCE), rungs)


def trained(name: str = "Mean", **params: Any) -> Any:
    """Fit one, on the rows of a prior."""
    prior = fit("prior", "binary")
    return own(name).fit(prior.problem, prior.rows, params, valid=None, rounds=0), prior


@pytest.mark.parametrize("name", ["Mean", "make"])
def test_a_class_or_a_function(name: str) -> None:
    """Both give objects; parameters go to the call."""
    whole, prior = trained(name)
    half, _ = trained(name, shrink=0.5)
    X = prior.rows.X
    np.testing.assert_allclose(half.predict(X), whole.predict(X) / 2)
    assert whole.predict(X).shape == (len(X), 1)


def test_it_travels_between_processes() -> None:
    """By its own files."""
    model, prior = trained(shrink=0.25)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(prior.rows.X), model.predict(prior.rows.X))


def test_a_bundle_needs_trust(tmp_path: Path) -> None:
    """Without it nothing of it is run, and the reason is said."""
    model, prior = trained()
    bundle = write(type(prior)(prior.problem, prior.table, prior.rows, model), "mine", tmp_path / "b")
    found = load_bundle(bundle.uri, digest=bundle.digest, trust=True).predict_table(prior.table)
    np.testing.assert_allclose(found, model.predict(prior.rows.X))
    with pytest.raises(BundleError, match=r"Python of own\.py, which runs only where the workflow trusts it"):
        load_bundle(bundle.uri, digest=bundle.digest)


def test_rungs_fit_on_and_on() -> None:
    """One object, rung by rung; a refit goes to the last at once."""
    prior = fit("prior", "binary")
    family = own("Mean", rungs=(1, 3, 9))
    models = list(family.stages(prior.problem, prior.rows, {}, valid=prior.rows))
    assert [m.rounds for m in models] == [1, 4, 13]
    assert models[0].made is models[2].made
    assert models[2].made.seen == [(1, True), (3, True), (9, True)]
    assert family.fit(prior.problem, prior.rows, {}, valid=None, rounds=0).made.seen == [(9, False)]


def test_a_table_is_read_as_it_is(tmp_path: Path) -> None:
    """In fits, bundles and single requests: text that no row of the fit had, too."""
    prior = fit("prior", "binary")
    rows = replace(prior.rows, table=prior.table)
    family = replace(own("Shouts"), reads_table=True)
    model = family.fit(prior.problem, rows, {}, valid=rows, rounds=0)
    (seen,) = model.made.seen
    assert seen[0] == prior.table.column_names
    assert (set(seen[1]), seen[2]) == ({"double", "string", "timestamp[us, tz=UTC]"}, len(rows.y))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(answer(again, rows), answer(model, rows))
    bundle = write(type(prior)(prior.problem, prior.table, rows, model), "mine", tmp_path / "b")
    served = load_bundle(bundle.uri, trust=True)
    np.testing.assert_allclose(served.predict_table(prior.table), answer(model, rows))
    other = {"lane": "NEW", "size": 10**400, "asked": "2024-01-05T10:00:00Z"}
    quiet, loud = served.predict_rows([{"lane": "new"}, other])
    assert loud[0] == quiet[0] + 1


def test_wrong_shapes_and_missing_methods_are_named() -> None:
    """So that a trial's reason says what to mend."""
    flat, prior = trained("Flat")
    with pytest.raises(ValueError, match=r"Flat answers 160 rows with shape \(160, 3\), expected \(160, 1\)"):
        flat.predict(prior.rows.X)
    with pytest.raises(TypeError, match="Mute has no method 'predict'"):
        own("Mute").fit(prior.problem, Rows(prior.rows.X, prior.rows.y), {}, valid=None, rounds=0)
