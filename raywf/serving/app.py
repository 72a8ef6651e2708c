"""The HTTP endpoint: one replica of the Ray Serve deployment.

The hot path (one row) is: parse, check, predict, append to the log, answer, all in the event loop. An
append costs some microseconds, since only the operating system has to take it. Bodies over 16 KB, and those
with rows to explain, go to a worker thread; the others mostly do not even reach Ray Serve, see
`raywf.serving.inline`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Literal, NamedTuple

import ray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raywf.core.clock import WallClock
from raywf.core.codec import encode
from raywf.core.errors import RaywfError, RowError, ServingError
from raywf.core.records import ModelVersion
from raywf.core.rollout import Rollouts
from raywf.core.settings import Workflow
from raywf.core.source import ModelSource
from raywf.outcomes.lookup import LogLookup
from raywf.outcomes.writer import LogWriter
from raywf.serving.admin import AdminDesk
from raywf.serving.cache import BundleCache, LoadedModel
from raywf.serving.exchange import Call, Reply, json_reply, refusal
from raywf.serving.explaining import may_explain
from raywf.serving.gather import MOST_ROWS
from raywf.serving.guard import Guard, keep_fresh
from raywf.serving.history import History, Versions
from raywf.serving.inline import INLINE_BYTES, InlineAnswers
from raywf.serving.keys import KeyBook, Scope
from raywf.serving.load import LoadGauge
from raywf.serving.meter import Meter, RaySink, keep_telling
from raywf.serving.openapi import openapi
from raywf.serving.predict import Asked, Predictions
from raywf.serving.requests import RequestError, read_outcomes
from raywf.serving.rollouts import LaneStatus, RolloutFollower, follow_rollouts
from raywf.serving.rpc import RpcServer
from raywf.serving.scaling import BUSY, WAIT_S
from raywf.serving.shadow import RayWorker
from raywf.serving.slots import ModelSlots, ReplicaStatus, follow
from raywf.serving.tally import Tallies, keep_tallying, write_tallies
from raywf.serving.tokens import TokenReader

DRAIN_LIMIT = (
    16  # times max_body_bytes: how much of a body that is too long is still read, so that 413 arrives
)
SWITCH_S = 0.0005  # a model that loads in a thread gives the interpreter back this often

PREDICTION = "/v1/predictions/"  # before an id, which the server has decoded
KEY_HEADER = b"x-raywf-key"  # whose value keeps a caller with one version during a rollout

_logger = logging.getLogger(__name__)

Access = Scope | Literal["open"] | None  # what a key has to be for; None: any key, "open": none is needed


class Route(NamedTuple):
    """What answers a path's method, who may call it, and whether it may take longer than a prediction.

    That may hang on the body, as `is_slow_body` says.
    """

    handler: Callable[[Call], Reply]
    access: Access
    is_slow: bool = False
    is_slow_body: Callable[[bytes], bool] | None = None

    def takes_long(self, body: bytes) -> bool:
        """Return whether a thread has to answer this body."""
        return self.is_slow or (self.is_slow_body is not None and self.is_slow_body(body))

    @property
    def is_traffic(self) -> bool:
        """Whether it is refused while others wait for too long."""
        return self.access in {"predict", "outcomes"}


class Endpoint:
    """Answers requests with the champion of `workflow`; see `raywf.serving.openapi` for the routes.

    Raises:
        ServingError: if neither the registry nor the cache gives a model.
        SettingsError: if the stores' root cannot hold the outcome log.

    """

    def __init__(self, workflow: Workflow, source: ModelSource) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._workflow, self._settings, self._clock = workflow, workflow.serving, WallClock()
        cache = BundleCache(
            workflow.stores.root,
            workflow.name,
            source,
            trust=workflow.trusts_own_code,
            max_mb=self._settings.max_model_mb,
            in_turn=True,
        )
        self._slots = ModelSlots(source, cache)
        self._rollout = RolloutFollower(
            Rollouts(workflow.stores.root, workflow.name),
            source,
            cache,
            self._slots,
            start_worker=partial(RayWorker, workflow, source),
            key=workflow.rollout.key,
        )
        self._log = LogWriter(
            workflow.stores.root, workflow.name, sync=self._settings.sync, sync_ms=self._settings.sync_ms
        )
        self._load = LoadGauge()
        self._threads = ThreadPoolExecutor(MOST_ROWS, "raywf-slow")
        self._prefix = self._settings.route.rstrip("/")
        self._meter = Meter()
        self._tallies = Tallies(workflow.monitor.window, cpus=self._settings.replica_cpus)
        counts = self._meter, self._tallies
        self._predictions = Predictions(self._log, self._rollout, self._clock, counts, self._settings)
        self._guard = Guard(
            KeyBook(workflow.stores.root, workflow.name),
            self._clock,
            may_be_open=self._settings.may_be_open,
            tokens=None if self._settings.oidc is None else TokenReader(self._settings.oidc),
            share=1 / (self._settings.max_replicas or self._settings.replicas),
        )
        self._routes = self._make_routes()
        self._admin = AdminDesk(workflow, self._clock)
        lookup = LogLookup(workflow.stores.root, workflow.name)
        self._history = History(lookup, Versions(self._slots, source, cache).bundle)
        self._stop = threading.Event()
        self._rpc: RpcServer | None = None
        every_s = self._settings.alias_poll_s
        self._followers = [
            _daemon("raywf-alias", partial(follow, self._slots, self._stop, every_s=every_s)),
            _daemon("raywf-keys", partial(keep_fresh, self._guard, self._stop)),
            _daemon("raywf-tally", partial(keep_tallying, self._tallies, self._log, self._stop)),
            _daemon("raywf-rollout", partial(follow_rollouts, self._rollout, self._stop, every_s=every_s)),
        ]
        if ray.is_initialized():
            InlineAnswers.answer = self.answer_now
            InlineAnswers.settle = self._settled if self._settings.sync == "each" else None
            if self._settings.grpc_port is not None:
                self._rpc = RpcServer(self.answer, self._settings)
            sink = RaySink(workflow.name, self._slots.replica)
            self._followers.append(
                _daemon("raywf-meter", partial(keep_telling, self._meter, sink, self._facts, self._stop))
            )

    def _make_routes(self) -> dict[str, dict[str, Route]]:
        return {
            "/v1/predict": {"POST": Route(self._predict, "predict", is_slow_body=self._predicts_slowly)},
            f"{PREDICTION}{{id}}": {"GET": Route(self._prediction, "predict", is_slow=True)},
            "/v1/outcomes": {"POST": Route(self._outcomes, "outcomes")},
            "/v1/model": {"GET": Route(self._model, None)},
            "/v1/retrain": {"POST": Route(self._retrain, "admin", is_slow=True)},
            "/v1/rollouts": {
                "GET": Route(self._rollouts, None, is_slow=True),
                "POST": Route(self._act, "admin", is_slow=True),
            },
            "/healthz": {"GET": Route(self._healthz, "open")},
            "/openapi.json": {"GET": Route(self._openapi, None)},
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request; every refusal is JSON with an ``error``."""
        start = time.perf_counter()
        path, headers = self._below(request.scope["path"]), dict(request.scope["headers"])
        try:
            route = self._route(path, request.method)
            caller = self._caller(route, headers)
            body = await _body(request, self._settings.max_body_bytes) if request.method == "POST" else b""
        except RequestError as err:
            reply = refusal(err)
        except ClientDisconnect:
            reply = Reply(b"", 400)
        else:
            call = Call(headers, body, caller, path)
            if len(body) > INLINE_BYTES or route.takes_long(body):
                reply = await self._in_thread(route.handler, call)
            else:
                reply = _carry_out(route.handler, call)
            reply = await self._settled(reply) if route.is_traffic else reply
        self._count(path, reply, start)
        more = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.body, reply.status, more, media_type=reply.kind)

    def answer_now(self, path: str, headers: Mapping[bytes, bytes], body: bytes) -> Reply | None:
        """Answer a POST whose small body is there; None if its answer may take long."""
        start = time.perf_counter()
        path = self._below(path)
        try:
            route = self._route(path, "POST")
            if route.takes_long(body):
                return None
            call = Call(headers, body, self._caller(route, headers))
        except RequestError as err:
            reply = refusal(err)
        else:
            reply = _carry_out(route.handler, call)
        self._count(path, reply, start)
        return reply

    async def answer(
        self, method: str, path: str, headers: Mapping[bytes, bytes], size: int, read: Callable[[], bytes]
    ) -> Reply:
        """Answer a request that did not come over HTTP: `read` gives its body of about `size` bytes."""
        start = time.perf_counter()
        try:
            route = self._route(path, method)
            call = Call(headers, b"", self._caller(route, headers))
        except RequestError as err:
            reply = refusal(err)
        else:

            def handle(call: Call) -> Reply:
                return route.handler(call._replace(body=read()))

            if size > INLINE_BYTES or route.takes_long(b""):
                reply = await self._in_thread(handle, call)
            else:
                reply = _carry_out(handle, call)
            reply = await self._settled(reply) if route.is_traffic else reply
        self._count(path, reply, start)
        return reply

    async def prepare(self, version: ModelVersion) -> ReplicaStatus:
        """Load a version in a worker thread, beside the one that serves."""
        return await asyncio.to_thread(self._slots.prepare, version)

    async def commit(self, version: str) -> ReplicaStatus:
        """Serve a prepared version from the next request on."""
        status = self._slots.commit(version)
        await asyncio.to_thread(self._slots.remember)
        return status

    async def abort(self, version: str) -> ReplicaStatus:
        """Drop a prepared version."""
        return self._slots.abort(version)

    async def rollout(self) -> LaneStatus:
        """Take up the present step of a rollout at once, and say how that goes."""
        return await asyncio.to_thread(self._rollout.converge)

    async def served(self) -> ReplicaStatus:
        """Say which version serves."""
        return self._slots.served()

    async def grpc_port(self) -> int | None:
        """Say on which port gRPC is served."""
        return None if self._rpc is None else self._rpc.port

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve how much the replica has to do."""
        return {BUSY: self._load.busy, WAIT_S: self._load.wait_s}

    async def check_health(self) -> None:
        """Tell Ray Serve that the replica is well.

        Raises:
            ServingError: if a thread that follows the alias or the keys is gone.

        """
        gone = [thread.name for thread in self._followers if not thread.is_alive()]
        if gone:
            raise ServingError(f"the thread {gone[0]} is gone")

    def __del__(self) -> None:
        """Stop the follower and sync the log when Ray Serve lets the replica go."""
        if hasattr(self, "_stop"):
            if InlineAnswers.answer == self.answer_now:
                InlineAnswers.answer = InlineAnswers.settle = None
            self._stop.set()
            if self._rpc is not None:
                self._rpc.close()
            self._rollout.close()
            self._threads.shutdown(wait=False)
            write_tallies(self._tallies, self._log, everything=True)
            self._log.close()

    def _facts(self) -> dict[str, float]:
        """Return what the replica is at, as figures."""
        lanes, counts = self._rollout.lanes, self._rollout.counts()
        version = self._slots.active.version.version
        return {
            "version_served": float(version) if version.isdecimal() else 0.0,
            "from_cache": float(self._slots.origin == "cache"),
            "rollout_share": 0.0 if lanes is None else lanes.step.share,
            "rollout_under_way": float(lanes is not None),
            "wait_seconds": self._load.wait_s,
            "log_unsynced_seconds": self._log.unsynced_s,
            "shadow_rows": float(counts[0]),
            "shadow_dropped": float(counts[1]),
        }

    def _below(self, path: str) -> str:
        """Return a path without the workflow's route; empty if it is not below it."""
        return path[len(self._prefix) :] if path.startswith(self._prefix) else ""

    def _route(self, path: str, method: str) -> Route:
        self._load.start()
        methods = self._routes.get(_template(path))
        if methods is None:
            raise RequestError(404, f"no such path: {path[:100]!r}", {"paths": sorted(self._routes)})
        found = methods.get("GET" if method == "HEAD" else method)
        if found is None:
            allowed = sorted(methods)
            reason = f"{method[:20]} is not allowed on {path}"
            raise RequestError(405, reason, {"allowed": allowed}, {"allow": ", ".join(allowed)})
        if found.is_traffic and self._load.wait_s > self._settings.max_wait_s:
            reason = f"too busy: requests wait for longer than {self._settings.max_wait_s:g} s; try again"
            raise RequestError(503, reason, headers={"retry-after": "1"})
        return found

    def _caller(self, route: Route, headers: Mapping[bytes, bytes]) -> str | None:
        if route.access == "open":
            return None
        return self._guard.check(headers.get(b"authorization", b"").decode("latin-1"), route.access)

    def _count(self, path: str, reply: Reply, start: float) -> None:
        route = _template(path)
        route = route if route in self._routes else "other"
        self._meter.request(route, reply.status, time.perf_counter() - start)

    async def _settled(self, reply: Reply) -> Reply:
        """Return a reply once what it acknowledges is where the settings want it, or the refusal instead."""
        if reply.status >= 300:
            return reply
        try:
            await self._log.synced()
        except OSError as err:
            reason = f"what was written could not be kept and may be lost; ask again under the same id: {err}"
            return refusal(RequestError(503, reason))
        return reply

    def _predicts_slowly(self, body: bytes) -> bool:
        return may_explain(body) or self._predictions.are_slow(self._slots.active)

    async def _in_thread(self, handler: Callable[[Call], Reply], call: Call) -> Reply:
        """Carry out a call in a thread: in one of many where they mostly wait for others to gather."""
        many = self._threads if self._slots.active.pace.gathers else None
        asked = time.perf_counter()

        def work() -> Reply:
            self._load.waited(time.perf_counter() - asked)
            return _carry_out(handler, call)

        return await asyncio.get_running_loop().run_in_executor(many, work)

    def _predict(self, call: Call) -> Reply:
        asked = Asked(
            call.body, call.header(b"content-type"), call.header(b"accept"), call.header(KEY_HEADER)
        )
        answer = self._predictions.answer(self._slots.active, asked)
        return Reply(answer.body, 200, answer.kind, answer.model.headers)

    def _prediction(self, call: Call) -> Reply:
        return Reply(self._history.prediction(call.path.removeprefix(PREDICTION)))

    def _outcomes(self, call: Call) -> Reply:
        bundle = self._slots.active.predictor.bundle
        outcomes = read_outcomes(call.body, bundle, max_rows=self._settings.max_rows, clock=self._clock)
        self._log.append(outcomes)
        return json_reply({"accepted": len(outcomes)}, 202)

    def _retrain(self, call: Call) -> Reply:
        return Reply(self._admin.retrain(_named(call), call.body), 202)

    def _act(self, call: Call) -> Reply:
        data = self._admin.act(_named(call), call.body)
        with suppress(RaywfError, OSError):  # what cannot be looked at now is looked at again
            self._rollout.converge()
        return Reply(data)

    def _rollouts(self, _: Call) -> Reply:
        return Reply(self._admin.rollouts())

    def _model(self, _: Call) -> Reply:
        slots = self._slots
        facts = describe(slots.active)
        refused = None if slots.last_refused is None else encode(slots.last_refused)
        previous = None if slots.previous is None else slots.previous.version.version
        facts |= {"origin": slots.origin, "previous": previous, "last_refused": refused}
        facts |= {"workflow": self._workflow.name, "replica": slots.replica}
        return json_reply(facts)

    def _healthz(self, _: Call) -> Reply:
        return json_reply({"status": "ok", "model_version": self._slots.active.version.version})

    def _openapi(self, _: Call) -> Reply:
        model = self._slots.active
        document = openapi(
            self._workflow.name,
            model.version.version,
            model.predictor.bundle,
            max_rows=self._settings.max_rows,
            keys=not self._guard.is_open,
        )
        return json_reply(document | {"servers": [{"url": self._settings.route}]})


def _template(path: str) -> str:
    """Return a path as the routes have it: what follows `PREDICTION`, slashes too, is an id."""
    return f"{PREDICTION}{{id}}" if path.startswith(PREDICTION) and path != PREDICTION else path


def _carry_out(handler: Callable[[Call], Reply], call: Call) -> Reply:
    try:
        return handler(call)
    except RequestError as err:
        return refusal(err)
    except RowError as err:
        return refusal(RequestError(422, str(err)))
    except OSError as err:
        return refusal(RequestError(503, f"the stores cannot be written, nothing was taken: {err}"))
    except Exception:  # whatever went wrong, the caller gets an answer and the log the trace
        _logger.exception("a request failed")
        return refusal(RequestError(500, "the request failed; the replica's log has the reason"))


def _named(call: Call) -> str:
    if call.caller is None:
        raise RequestError(403, "this needs a key: raywf keys add NAME --scope admin")
    return call.caller


def _daemon(name: str, work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def describe(model: LoadedModel) -> dict[str, Any]:
    """Return what ``/v1/model`` says of a model."""
    version, bundle = model.version, model.predictor.bundle
    loaded: datetime = model.loaded
    return {
        "version": version.version,
        "digest": version.digest,
        "task": bundle.task,
        "snapshot_id": version.snapshot_id,
        "sweep_id": version.sweep_id,
        "columns": encode(bundle.columns),
        "classes": list(bundle.classes),
        "metrics": {k: v for k, v in version.metrics.items() if v == v},
        "loaded": encode(loaded),
    }


async def _body(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            parts.append(chunk)
        elif size > DRAIN_LIMIT * limit:
            break
    if size > limit:
        raise RequestError(413, f"the body is longer than {limit} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)
