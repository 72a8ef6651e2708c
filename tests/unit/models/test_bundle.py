"""Bundles on disk: checked before they are used, free of pickle, served without pandas and torch."""

from __future__ import annotations

import json
import pickletools
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import fit, seal, write

from raywf.core.errors import BundleError, RowError
from raywf.models.bundle import check_answers, load_bundle
from raywf.models.calibration import Calibration
from raywf.models.families import _PLACES

KNOWN_ENDINGS = {".json", ".txt", ".safetensors"}
PREDICT_WITHOUT_BOTH = """
import sys
sys.modules["pandas"] = None  # any import of it fails now
from raywf.models.bundle import load_bundle
for uri in sys.argv[1:]:
    predictor = load_bundle(uri)
    predictor.check_reference()
    predictor.predict_row({"size": 0.5, "lane": "n", "asked": "2024-01-01T00:00:00Z"})
assert "torch" not in sys.modules
"""


def test_changed_file_is_refused(bundle_copy: Path) -> None:
    """One byte more in a member's file."""
    with (bundle_copy / "member-0" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"extra files: member-0/model\.safetensors"):
        load_bundle(bundle_copy)


def test_missing_file_is_refused(bundle_copy: Path) -> None:
    """It is named."""
    (bundle_copy / "reference.json").unlink()
    with pytest.raises(BundleError, match=r"missing, changed or extra files: reference\.json"):
        load_bundle(bundle_copy)


def test_extra_file_is_refused(bundle_copy: Path) -> None:
    """A file that no digest covers does not travel along."""
    (bundle_copy / "notes.pkl").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra files: notes\.pkl"):
        load_bundle(bundle_copy)


def test_other_bundle_is_refused(bundle_copy: Path, written: Any) -> None:
    """A whole bundle, but not the one that the registry names."""
    with pytest.raises(BundleError, match=r"has digest sha256:\w+, expected sha256:0000"):
        load_bundle(bundle_copy, digest="sha256:0000")
    assert load_bundle(bundle_copy, digest=written("linear", "binary")[1].digest)


def test_absent_bundle_is_refused(tmp_path: Path) -> None:
    """A folder without digests cannot be read."""
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["bundle.json", "encoder.json", "digests.json"])
def test_garbled_json_is_refused(name: str, bundle_copy: Path) -> None:
    """Digests that fit garbage do not make it a bundle."""
    (bundle_copy / name).write_text('{"columns": ')
    if name != "digests.json":
        seal(bundle_copy)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(bundle_copy)


def test_other_answers_are_refused(bundle_copy: Path) -> None:
    """Reference rows that are answered otherwise than at export."""
    stored = json.loads((bundle_copy / "reference.json").read_text())
    stored["scores"][0][0] += 0.01
    (bundle_copy / "reference.json").write_text(json.dumps(stored))
    seal(bundle_copy)
    with pytest.raises(BundleError, match=r"reference answers differ by 0\.01"):
        load_bundle(bundle_copy).check_reference()


@pytest.mark.parametrize("answer", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_refused(answer: float) -> None:
    """A model that answers nan is not served."""
    with pytest.raises(BundleError, match="not finite"):
        check_answers(np.array([[answer]]), np.array([[0.5]]), task="binary")


def test_answers_of_another_shape_are_refused() -> None:
    """Fewer or more columns than at export are not the same model's."""
    with pytest.raises(BundleError, match="reference answers"):
        check_answers(np.full((2, 3), 0.5), np.full((2, 1), 0.5), task="binary")


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_numbers_are_compared_by_their_size(size: float) -> None:
    """A model of tiny labels that answers something else is refused too."""
    expected = size * np.array([[1.0], [2.0]])
    check_answers(expected * (1 + 1e-7), expected, task="regression")
    with pytest.raises(BundleError, match="reference answers differ"):
        check_answers(expected * 1.001, expected, task="regression")
    zero = np.zeros((2, 1))
    check_answers(zero, zero, task="regression")


@pytest.mark.parametrize("name", sorted(_PLACES))
def test_no_file_is_a_pickle(name: str, written: Any) -> None:
    """By ending and by content: nothing that unpickles, nothing that zips objects."""
    for file in Path(written(name, "multiclass")[1].uri).rglob("*"):
        if file.is_file():
            assert file.suffix in KNOWN_ENDINGS
            assert not zipfile.is_zipfile(file)
            if file.suffix != ".safetensors":  # which begins with its header's length
                assert not file.read_bytes().startswith(b"\x80")
            with pytest.raises(ValueError, match=r"."):
                list(pickletools.genops(file.read_bytes()))


def test_predicts_without_pandas_and_torch(written: Any) -> None:
    """Bundles load and answer in a process where pandas cannot be imported and nothing imports torch."""
    bundles = [written(name, "binary")[1].uri for name in sorted(_PLACES)]
    command = [sys.executable, "-c", PREDICT_WITHOUT_BOTH, *bundles]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_wrong_type_names_the_field(written: Any) -> None:
    """A row is refused as a RowError, which is answered with 422."""
    predictor = load_bundle(written("prior", "binary")[1].uri)
    with pytest.raises(RowError, match="field 'size': expected a number, got 'wide'"):
        predictor.predict_row({"size": "wide"})


def test_row_and_rows_agree(written: Any) -> None:
    """Row by row or all at once, an ensemble answers alike."""
    fitted, bundle = written("lightgbm", "multiclass")
    predictor = load_bundle(bundle.uri)
    rows = fitted.table.to_pylist()[:20]
    np.testing.assert_allclose([predictor.predict_row(r) for r in rows], predictor.predict_rows(rows))


@pytest.mark.parametrize("name", sorted(_PLACES))
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_threads_do_not_disturb_each_other(name: str, task: str, written: Any) -> None:
    """Eight threads ask one predictor for other rows at once, row by row and many: as if they were alone."""
    fitted, bundle = written(name, task)
    predictor = load_bundle(bundle.uri)
    rows = fitted.table.to_pylist()[:40]
    wanted = np.array([predictor.predict_row(row) for row in rows])
    together = threading.Barrier(8)

    def ask(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(rows))
        together.wait()
        for i in order:
            np.testing.assert_array_equal(predictor.predict_row(rows[i]), wanted[i])
        found = predictor.predict_rows([rows[i] for i in order])
        np.testing.assert_allclose(found, wanted[order], rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [None] * 8


def test_calibration_is_part_of_the_bundle(tmp_path: Path) -> None:
    """It is applied after loading as it was before."""
    fitted, calibration = fit("linear", "binary"), Calibration(slope=2.0, shift=-0.3)
    bundle = write(fitted, "linear", tmp_path / "b", calibration=calibration)
    found = load_bundle(bundle.uri).predict_table(fitted.table)
    np.testing.assert_allclose(found, calibration.apply(fitted.model.predict(fitted.rows.X)), atol=1e-6)
