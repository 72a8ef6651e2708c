"""A replica's models: two phases, refusals, the alias and the cache."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raywf.core.errors import RegistryError, ServingError
from raywf.core.records import ModelVersion
from raywf.core.serving_settings import ServingSettings
from raywf.serving import cache as cache_module
from raywf.serving.cache import KEPT_BUNDLES, BundleCache
from raywf.serving.environment import free_ports, serve_env
from raywf.serving.slots import ModelSlots, follow
from raywf.testing import FolderSource


def make(tmp_path: Path, source: FolderSource) -> ModelSlots:
    return ModelSlots(source, BundleCache(str(tmp_path / "root"), "w", source))


def spoil(source: FolderSource, version: str) -> None:
    (Path(source.version(version).uri) / "reference.json").write_text('{"rows": [], "scores": []}')


def test_prepare_changes_nothing_until_commit(tmp_path: Path, source: FolderSource) -> None:
    """The old model answers until the commit, and stays warm after it."""
    slots = make(tmp_path, source)
    old = slots.active
    assert slots.prepare(source.version("2")).ok
    assert slots.active is old
    assert slots.commit("2").version == "2"
    assert slots.previous is old


def test_rollback_is_instant(tmp_path: Path, source: FolderSource) -> None:
    """Preparing the version before needs no files."""
    slots = make(tmp_path, source)
    old = slots.active
    slots.prepare(source.version("2"))
    slots.commit("2")
    former = source.version("1")
    source.set_down(True)
    assert slots.prepare(former).ok
    assert slots.commit("1").ok
    assert slots.active is old


def test_verbs_are_idempotent(tmp_path: Path, source: FolderSource) -> None:
    """Repeated verbs give the same state."""
    slots = make(tmp_path, source)
    for _ in range(2):
        assert slots.prepare(source.version("2")).ok
    for _ in range(2):
        assert slots.commit("2").ok
    assert slots.previous is not None
    assert (slots.previous.version.version, slots.active.version.version) == ("1", "2")
    assert slots.abort("9").ok


def test_commit_without_prepare_is_refused(tmp_path: Path, source: FolderSource) -> None:
    """Also after an abort."""
    slots = make(tmp_path, source)
    slots.prepare(source.version("2"))
    slots.abort("2")
    status = slots.commit("2")
    assert (status.ok, status.version) == (False, "1")
    assert "not prepared" in status.reason


def test_changed_bundle_is_refused(tmp_path: Path, source: FolderSource) -> None:
    """A wrong digest is a status with its reason; the old model goes on."""
    slots = make(tmp_path, source)
    spoil(source, "2")
    status = slots.prepare(source.version("2"))
    assert not status.ok
    assert "changed" in status.reason
    assert slots.last_refused is not None
    assert slots.last_refused.version == "2"
    assert slots.active.version.version == "1"


def test_converges_at_the_second_look(tmp_path: Path, source: FolderSource) -> None:
    """One difference may be a swap under way, two are a missed one."""
    slots = make(tmp_path, source)
    source.move("champion", "2")
    slots.converge()
    assert slots.active.version.version == "1"
    slots.converge()
    assert slots.active.version.version == "2"


def test_broken_version_is_tried_once(tmp_path: Path, source: FolderSource) -> None:
    """A refused version is not loaded again at every look."""
    slots = make(tmp_path, source)
    spoil(source, "2")
    source.move("champion", "2")
    slots.converge()
    slots.converge()
    first = slots.last_refused
    slots.converge()
    slots.converge()
    assert first is not None
    assert slots.last_refused is first


def test_registry_down_keeps_the_model(tmp_path: Path, source: FolderSource) -> None:
    """Looking at the alias raises, the model stays."""
    slots = make(tmp_path, source)
    source.set_down(True)
    with pytest.raises(RegistryError, match="down"):
        slots.converge()
    assert slots.active.version.version == "1"


def test_starts_from_the_cache(tmp_path: Path, source: FolderSource) -> None:
    """With the registry down, the last good model serves."""
    slots = make(tmp_path, source)
    slots.prepare(source.version("2"))
    slots.commit("2")
    slots.remember()
    source.set_down(True)
    again = make(tmp_path, source)
    assert (again.active.version.version, again.origin) == ("2", "cache")


def test_broken_champion_starts_from_the_cache(tmp_path: Path, source: FolderSource) -> None:
    """A new replica does not serve a broken champion, and says so."""
    make(tmp_path, source)
    spoil(source, "2")
    source.move("champion", "2")
    again = make(tmp_path, source)
    assert again.active.version.version == "1"
    assert again.last_refused is not None
    assert again.last_refused.version == "2"


def test_nothing_to_serve(tmp_path: Path, source: FolderSource) -> None:
    """No registry and no cache: an error that says both."""
    source.set_down(True)
    with pytest.raises(ServingError, match=r"no model to serve: .* is down; nothing in"):
        make(tmp_path, source)


def test_spoilt_cache_is_fetched_again(tmp_path: Path, source: FolderSource) -> None:
    """A damaged cached copy is replaced from the registry."""
    cache = make(tmp_path, source)._cache
    folder = cache._bundle_folder(source.version("1"))
    (folder / "bundle.json").write_text("{}")
    assert make(tmp_path, source).active.version.version == "1"


def test_replicas_of_a_machine_load_in_turn(
    tmp_path: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fetches for all; one that holds its turn for too long is not waited for."""
    fetched: list[str] = []
    fetch = FolderSource.fetch

    def slow(self: FolderSource, version: ModelVersion, folder: Path) -> Path:
        fetched.append(version.version)
        time.sleep(0.05)
        return fetch(self, version, folder)

    monkeypatch.setattr(FolderSource, "fetch", slow)
    caches = [BundleCache(str(tmp_path / "root"), "w", source, in_turn=True) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda cache: cache.load(source.version("1")), caches))
    assert (len({id(model) for model in models}), fetched) == (4, ["1"])
    monkeypatch.setattr(cache_module, "TURN_S", 0.05)
    with caches[0]._turn():
        start = time.monotonic()
        assert caches[1].load(source.version("2")).version.version == "2"
        assert time.monotonic() - start > 0.05


def refuse(*_: object) -> None:
    raise OSError(37, "No locks available")


@pytest.mark.parametrize("name", ["open", "claim"])
def test_a_disk_without_locks_is_read(
    tmp_path: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One that is full or read-only, or a mount that knows no locks, still has the bundle to start from."""
    cache = BundleCache(str(tmp_path / "root"), "w", source, in_turn=True)
    monkeypatch.setattr(cache_module, name, refuse, raising=False)
    assert cache.load(source.version("1")).version.version == "1"


def test_old_bundles_are_removed(tmp_path: Path, source: FolderSource) -> None:
    """The cache does not grow without bound."""
    slots = make(tmp_path, source)
    for i in range(KEPT_BUNDLES + 5):
        (slots._cache.folder / f"{i}-old").mkdir()
    slots.remember()
    assert len([p for p in slots._cache.folder.iterdir() if p.is_dir()]) == KEPT_BUNDLES


def test_follow_swaps_by_itself(tmp_path: Path, source: FolderSource) -> None:
    """The follower's thread outlives a registry that is away, and converges after."""
    slots, stop = make(tmp_path, source), threading.Event()
    source.set_down(True)
    thread = threading.Thread(target=follow, args=(slots, stop), kwargs={"every_s": 0.005})
    thread.start()
    source.move("champion", "2")
    source.set_down(False)
    deadline = time.monotonic() + 10
    while slots.active.version.version != "2" and time.monotonic() < deadline:
        stop.wait(0.005)
    stop.set()
    thread.join()
    assert slots.active.version.version == "2"


def test_folder_source_is_picklable(source: FolderSource) -> None:
    """A source goes to replicas by pickle."""
    assert pickle.loads(pickle.dumps(source)).resolve("champion").version == "1"


def test_of_an_object_store_the_cache_is_on_the_node(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a replica that starts while the registry is away finds its bundle."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tmp_path in BundleCache("s3://b/x", "w", source).folder.parents


def test_environment_has_ports_of_its_own() -> None:
    """Two clusters on one machine do not share a port; the admin socket's folder is private."""
    one, two = serve_env(ServingSettings()), serve_env(ServingSettings())
    ports = [name for name in one if name.endswith("_PORT") and "DIRECT" not in name]
    assert len({one[name] for name in ports}) == len(ports)
    assert one["RAY_SERVE_HAPROXY_STATS_PORT"] != two["RAY_SERVE_HAPROXY_STATS_PORT"]
    assert Path(one["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent.stat().st_mode & 0o077 == 0
    assert len(one["RAY_SERVE_HAPROXY_SOCKET_PATH"]) + 57 < 107
    assert len(set(free_ports(20))) == 20


def test_node_address_is_left_alone_off_loopback() -> None:
    """An endpoint for other machines needs a reachable node."""
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in serve_env(ServingSettings(host="0.0.0.0"))


def test_a_model_that_is_too_large_is_refused(tmp_path: Path, source: FolderSource) -> None:
    """Its files alone tell, before anything of it is loaded; the champion serves on."""
    cache = BundleCache(str(tmp_path / "root"), "w", source)
    slots = ModelSlots(source, cache)
    cache._max_mb = 0.001
    status = slots.prepare(source.version("2"))
    assert (status.ok, status.version) == (False, "1")
    assert "too large: its files have" in status.reason
    assert "serving.max_model_mb" in status.reason
