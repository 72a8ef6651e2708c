"""The folder of a scoring run: one run's, each part once, true once the manifest is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raywf.core.errors import SettingsError, SourceError
from raywf.core.store import Store
from raywf.loop.scores import MANIFEST, Run, check_part, claim, commit, read_scores, write_part

RUN = Run(workflow="w", input="t.csv", source="s1", version="1", digest="sha256:1", columns=("id", "value"))
TABLE = pa.table({"id": ["a", "b"], "value": [1.0, 2.0]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.mark.parametrize(
    "change", [{"source": "s2"}, {"version": "2"}, {"digest": "sha256:2"}, {"columns": ("id",)}]
)
def test_a_run_is_named_by_rows_model_and_columns(change: dict[str, str]) -> None:
    """Whatever of them changes makes another run."""
    assert RUN.id == replace(RUN, input="moved.csv").id != replace(RUN, **change).id  # type: ignore[arg-type]


def test_a_folder_is_taken_up_again(store: Store) -> None:
    """By the same run, as often as it takes."""
    assert claim(store, RUN) is None
    assert claim(store, RUN) is None


def test_a_part_is_written_once(store: Store) -> None:
    """The second writer is given the part that is there, be its own another."""
    first = write_part(store, RUN.id, "part-1.parquet", TABLE)
    assert write_part(store, RUN.id, "part-1.parquet", TABLE.slice(1)) == first
    assert check_part(store, RUN.id, "part-1.parquet") == first
    assert first.rows == 2


def test_a_finished_run_is_read(store: Store) -> None:
    """In the order of the parts' names; files that the manifest does not name are no part of it."""
    claim(store, RUN)
    parts = [write_part(store, RUN.id, f"part-{i}.parquet", TABLE.slice(i, 1)) for i in (1, 0)]
    store.write("part-9.parquet", b"of a killed run")
    made = commit(store, RUN, (*parts, replace(parts[0], name="part-5.parquet", rows=0, digest="")))
    assert (made.rows, [p.name for p in made.parts]) == (2, ["part-0.parquet", "part-1.parquet"])
    assert read_scores(store.root) == TABLE
    assert claim(store, RUN) == made


def test_an_unfinished_run_cannot_be_read(store: Store) -> None:
    """Without a manifest nothing is true."""
    claim(store, RUN)
    write_part(store, RUN.id, "part-0.parquet", TABLE)
    with pytest.raises(SourceError, match="holds no finished run"):
        read_scores(store.root)


def test_a_changed_part_is_not_read(store: Store) -> None:
    """Its digest is not the manifest's."""
    claim(store, RUN)
    commit(store, RUN, (write_part(store, RUN.id, "part-0.parquet", TABLE),))
    pq.write_table(TABLE.slice(1), Path(store.root) / "part-0.parquet")
    with pytest.raises(SourceError, match="is not the part that the manifest names"):
        read_scores(store.root)


def test_another_run_s_folder_is_refused(store: Store) -> None:
    """With what is different."""
    claim(store, RUN)
    with pytest.raises(SettingsError, match=r"another run: its version is '1', not '2'; give --output"):
        claim(store, replace(RUN, version="2"))


def test_a_folder_of_something_else_is_refused(store: Store) -> None:
    """It may be the user's own data."""
    store.write("notes.txt", b"")
    with pytest.raises(SettingsError, match="is not empty and no run's"):
        claim(store, RUN)


def test_a_damaged_part_is_named(store: Store) -> None:
    """Whoever wrote it, it is not counted as done."""
    store.write("part-0.parquet", b"half")
    with pytest.raises(SettingsError, match="is damaged, remove it"):
        check_part(store, RUN.id, "part-0.parquet")


def test_a_part_of_another_run_is_named(store: Store) -> None:
    """Two runs' parts have the same names."""
    write_part(store, "other", "part-0.parquet", TABLE)
    with pytest.raises(SettingsError, match="is of another run"):
        check_part(store, RUN.id, "part-0.parquet")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """One line, with the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written: Not a directory"):
        claim(Store(str(tmp_path / "file" / "out")), RUN)


def test_the_manifest_is_the_first_writer_s(store: Store) -> None:
    """Two drivers of one run come to the same end."""
    claim(store, RUN)
    part = write_part(store, RUN.id, "part-0.parquet", TABLE)
    first = commit(store, RUN, (part,))
    before = store.read(MANIFEST)
    assert commit(store, RUN, (part,)) == first
    assert store.read(MANIFEST) == before
