"""The client against the endpoint on a real socket: answers, refusals, and calls that are made again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import uvicorn
from conftest import make_workflow
from starlette.requests import Request
from starlette.responses import Response

from raywf.client import AsyncClient, CallError, Client, KnownOutcome
from raywf.core.errors import SettingsError
from raywf.core.records import Outcome, Prediction
from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.serving.environment import free_ports
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import SMALL_ROW, FolderSource, small_bundle

ROW = dict(SMALL_ROW)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Site:
    """An endpoint behind uvicorn; `before` may answer in its stead."""

    def __init__(self, folder: Path) -> None:
        source = FolderSource(str(folder / "registry"))
        source.add(small_bundle(folder / "bundle", rounds=5), version="1")
        source.move("champion", "1")
        self.root = str(folder / "root")
        self.key = KeyBook(self.root, "w").add(Caller(name="a", scopes=("predict", "outcomes")), now=NOW)
        self.endpoint = Endpoint(make_workflow(folder / "root"), source)
        self.before: Callable[[], Response | None] = lambda: None
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.server = uvicorn.Server(
            uvicorn.Config(self._app, interface="asgi3", port=port, log_level="error", lifespan="off")
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        answer = self.before() or await self.endpoint(Request(scope, receive))
        await answer(scope, receive, send)

    def log(self) -> tuple[Any, ...]:
        return LogReader(self.root, "w").read()[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests; each looks at its own ids."""
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.server.should_exit = True
    made.thread.join(10)


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A client with a key."""
    site.before = lambda: None
    with Client(site.url, key=site.key) as made:
        yield made


def test_one_row_and_its_outcome(site: Site, client: Client) -> None:
    """The log has the row under its id with its time, and what became of it."""
    answer = client.predict(ROW, prediction_id="one", time=NOW)
    assert (answer.id, answer.model_version, set(answer.probabilities)) == ("one", "1", {"late", "no"})
    assert answer.prediction == max(answer.probabilities, key=lambda name: answer.probabilities[name])
    client.report("one", "late", value=2.5)
    found = [e for e in site.log() if e.id == "one"]
    assert isinstance(found[0], Prediction)
    assert found[0].time == NOW
    assert isinstance(found[1], Outcome)
    assert (found[1].label, found[1].value) == ("late", 2.5)
    assert client.model()["version"] == "1"


def test_many_rows(site: Site) -> None:
    """In batches, in order, by rows and by table alike, plain and async."""
    rows = [ROW | {"distance": 100.0 + i} for i in range(25)]
    ids = [f"many-{i}" for i in range(25)]
    table = pa.Table.from_pylist(rows)
    with Client(site.url, key=site.key, batch=10) as client:
        found = client.predict_many(rows, ids=ids)
        by_table = client.predict_table(table)
    assert [answer.id for answer in found] == ids
    shares = [answer.probabilities["late"] for answer in found]
    assert by_table["probability_late"].to_pylist() == pytest.approx(shares)

    async def again() -> tuple[list[Any], pa.Table]:
        async with AsyncClient(site.url, key=site.key, batch=10) as client:
            await client.report("many-0", "no")
            assert (await client.model())["version"] == "1"
            return (
                await client.predict_many(rows),
                await client.predict_table(table),
                await client.predict(ROW),
            )

    many, tabled, _ = asyncio.run(again())
    assert [answer.probabilities["late"] for answer in many] == shares
    assert tabled["probability_late"].to_pylist() == pytest.approx(shares)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_call_is_made_again(site: Site, client: Client, status: int) -> None:
    """Twice refused and then answered: one prediction of one id."""
    left = [status, status]
    site.before = lambda: Response(b"busy", left.pop()) if left else None
    answer = client.predict(ROW)
    assert [e.id for e in site.log()].count(answer.id) == 1


def test_a_stated_pause_is_kept(site: Site, client: Client) -> None:
    """Retry-After says how long."""
    left = [429]
    site.before = lambda: Response(b"", left.pop(), headers={"retry-after": "1"}) if left else None
    start = time.monotonic()
    client.predict(ROW)
    assert time.monotonic() - start > 0.9


@pytest.mark.parametrize(
    ("features", "status", "reason"),
    [({"distance": 1}, 422, "missing"), (ROW | {"distance": "far"}, 422, "must be a number")],
)
def test_refusals(client: Client, features: dict[str, Any], status: int, reason: str) -> None:
    """At once, with status, reason and problems."""
    with pytest.raises(CallError, match=reason) as caught:
        client.predict(features)
    assert (caught.value.status, caught.value.problems[0]["row"]) == (status, 0)


def test_without_a_key(site: Site) -> None:
    """Refused, and the key's text is in no message."""
    site.before = lambda: None
    with Client(site.url, key="rwf_wrong") as client, pytest.raises(CallError, match="401") as caught:
        client.predict(ROW)
    assert "rwf_wrong" not in repr(caught.value)


def test_nobody_there() -> None:
    """After the last attempt one error says so."""
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(CallError, match="no answer"):
        client.predict(ROW)


@pytest.mark.parametrize("key", ["rwf_SECRET x", "rwf_SECRET\x00", "rwf_SECR\u00c9T", " "])
def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    """A key read from a file may have anything around it or in it."""
    with pytest.raises(SettingsError, match="holds characters that no key has") as caught:
        Client("http://127.0.0.1:1", key=key)
    assert "SECR" not in repr(caught.value)


def test_space_around_a_key_is_none_of_it(site: Site) -> None:
    """As a file with one line has it."""
    with Client(site.url, key=f"{site.key}\n") as client:
        assert client.predict(ROW).model_version == "1"


def test_an_answer_of_something_else(site: Site, client: Client) -> None:
    """A page of a proxy in between is no answer, and no crash."""
    site.before = lambda: Response("<html>", media_type="text/html")
    table = pa.table({name: [value] for name, value in ROW.items()})
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.predict(ROW),
        client.model,
        lambda: client.predict_table(table),
        lambda: client.prediction("a"),
    )
    for call in calls:
        with pytest.raises(CallError, match="is the URL right"):
            call()


def test_a_later_endpoint_may_say_more(site: Site, client: Client) -> None:
    """Fields that this client does not know are no error."""
    told = b'{"model_version": "1", "new": 1, "predictions": [{"id": "a", "value": 1.5, "newer": 2}]}'
    site.before = lambda: Response(told, media_type="application/json")
    assert client.predict(ROW).value == 1.5


def test_times_without_a_zone_are_utc(site: Site, client: Client) -> None:
    """Wherever the caller is."""
    client.predict(ROW, prediction_id="naive", time=datetime(2026, 1, 1, 12))
    (entry,) = (one for one in site.log() if one.id == "naive")
    assert entry.time == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_ids_that_do_not_fit_are_refused_before_anything_is_sent(site: Site, client: Client) -> None:
    """As many as there are rows, and none of them empty."""
    before = site.log()
    with pytest.raises(ValueError, match="2 rows and 3 ids"):
        client.predict_many([ROW, ROW], ids=["a", "b", "c"])
    with pytest.raises(CallError, match="of 1 to 200 characters"):
        client.predict(ROW, prediction_id="")
    assert site.log() == before


def test_no_rows(client: Client) -> None:
    """Give no answers."""
    table = pa.table({name: pa.array([value]) for name, value in ROW.items()})
    assert client.predict_table(table.slice(0, 0)).num_rows == 0
    assert client.predict_many([]) == []


def test_the_first_refusal_ends_the_other_batches(site: Site) -> None:
    """Nothing is asked for that nobody waits for."""
    calls = 0

    def refuse() -> Response:
        nonlocal calls
        calls += 1
        return Response(b'{"error": "no"}', 422, media_type="application/json")

    site.before = refuse

    async def ask() -> None:
        async with AsyncClient(site.url, key=site.key, batch=1, side_by_side=1) as client:
            with pytest.raises(CallError, match="no"):
                await client.predict_many([ROW] * 10)
            await asyncio.sleep(0.2)

    asyncio.run(ask())
    assert calls == 1


def test_an_explained_prediction(site: Site) -> None:
    """Base and contributions sum to what was answered; many rows go in as many calls as they need."""
    site.before = lambda: None
    rows = [ROW | {"distance": 100.0 + i} for i in range(105)]
    with Client(site.url, key=site.key) as client:
        assert client.predict(ROW).explanation is None
        found = [client.predict(ROW, explain=True), *client.predict_many(rows, explain=True)]

    async def again() -> list[Any]:
        async with AsyncClient(site.url, key=site.key) as client:
            return [await client.predict(ROW, explain=True), *await client.predict_many(rows, explain=True)]

    for answer in [*found, *asyncio.run(again())]:
        assert answer.explanation.methods == ("trees",)
        parts = [answer.explanation.base, *answer.explanation.contributions.values()]
        assert sum(part["late"] for part in parts) == pytest.approx(answer.probabilities["late"], abs=1e-6)


def test_a_past_prediction(site: Site, client: Client) -> None:
    """By its id, whatever that is; with its outcome once it is known."""
    name = "past/../1.5 %é"
    answer = client.predict(ROW, prediction_id=name, time=NOW)
    found = client.prediction(name)
    assert (found.answer, found.time, found.features) == (answer, NOW, ROW)
    assert (found.scores, found.outcome, found.shadows) == ((answer.probabilities["late"],), None, ())
    client.report(name, "no", time=NOW, value=1.5)

    async def again() -> Any:
        async with AsyncClient(site.url, key=site.key) as client:
            return await client.prediction(name)

    assert asyncio.run(again()).outcome == KnownOutcome(label="no", time=NOW, value=1.5)
    with pytest.raises(CallError, match="holds no prediction with the id 'none'") as caught:
        client.prediction("none")
    assert caught.value.status == 404
