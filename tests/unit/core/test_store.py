"""Files below a root: whole or absent, and created by one process only."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from raywf.core.store import Store


def _create(root: str, name: str, barrier: object) -> bool:
    barrier.wait(30)  # type: ignore[attr-defined]
    return Store(root).create("decisions/one", name.encode())


def test_create_is_exclusive_among_processes(tmp_path: Path) -> None:
    """Of processes that create one file at once, one is told that it did, and the file is its."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(6) as pool:
        barrier = manager.Barrier(6)
        won = pool.starmap(_create, [(str(tmp_path), str(i), barrier) for i in range(6)], chunksize=1)
    assert won.count(True) == 1
    assert Store(str(tmp_path)).read("decisions/one") == str(won.index(True)).encode()


def test_create_leaves_what_is_there(tmp_path: Path) -> None:
    """The second call changes nothing and leaves no draft."""
    store = Store(str(tmp_path))
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert store.read("a") == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """A file that is open shows the old bytes to its end, a new reader the new ones."""
    store = Store(str(tmp_path))
    store.write("a/b", b"old" * 1000)
    with (tmp_path / "a/b").open("rb") as reader:
        store.write("a/b", b"new")
        assert reader.read() == b"old" * 1000
    assert store.read("a/b") == b"new"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_list_gives_the_names_below_a_folder(tmp_path: Path) -> None:
    """Sorted, one level deep; drafts of writers that died do not show."""
    store = Store(str(tmp_path))
    for name in ("f/b", "f/a", "f/deep/c"):
        store.write(name, b"")
    (tmp_path / "f/d.draft-0123").touch()
    assert store.list("f") == ("a", "b", "deep")
    assert store.list("none") == ()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """Reading what is not there raises what `open` raises."""
    assert not Store(str(tmp_path)).exists("none")
    with pytest.raises(FileNotFoundError, match="none"):
        Store(str(tmp_path)).read("none")


@pytest.mark.parametrize(("root", "local"), [("/data", True), ("file:///data", True), ("s3://b/r", False)])
def test_a_root_knows_whether_it_is_local(root: str, local: bool) -> None:
    """Only a local root has atomic creation."""
    assert Store(root).is_local is local


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    """The same files are there by path and by URI."""
    Store(f"file://{tmp_path}").write("a", b"x")
    assert Store(str(tmp_path)).read("a") == b"x"
