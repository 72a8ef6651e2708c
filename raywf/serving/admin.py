"""What may be asked of the running system over HTTP besides predictions; each act is kept with its caller."""

from __future__ import annotations

import orjson

from raywf.core.audit import Audit
from raywf.core.clock import Clock
from raywf.core.codec import encode
from raywf.core.errors import ServingError
from raywf.core.journal import Journal
from raywf.core.rollout import Rollouts
from raywf.core.settings import Workflow
from raywf.serving.requests import MAX_ID, MAX_REASON, RequestError, read_json

_DEFAULT = "asked for over HTTP"
_ACTS = ("pause", "resume", "abort")


class AdminDesk:
    """Writes down what is asked for, for the controller to carry out, and who asked.

    Its methods write to the stores and so may wait: call them in a thread.
    """

    def __init__(self, workflow: Workflow, clock: Clock) -> None:
        root, name = workflow.stores.root, workflow.name
        self._journal, self._audit = Journal(root, name), Audit(root, name)
        self._rollouts = Rollouts(root, name)
        self._clock = clock if workflow.monitor.clock == "wall" else None

    def retrain(self, who: str, body: bytes) -> bytes:
        """Ask for a retraining; the body is empty or has a ``reason`` and an ``id``. Return the JSON answer.

        The same ``id`` twice is one request, so that who got no answer may send it again.

        Raises:
            RequestError: 400 or 422 if the body is not right.
        """
        reason, key = _asked(body)
        facts = {"reason": reason} | ({} if key is None else {"id": key})
        self._audit.note(who, "retrain", facts)  # first: nothing is done that is not noted
        return orjson.dumps({"request": self._journal.request(reason, key=key)})

    def rollouts(self) -> bytes:
        """Return the newest rollout's steps as JSON."""
        latest = self._rollouts.latest()
        steps = () if latest is None else self._rollouts.steps(latest.rollout)
        return orjson.dumps({"steps": encode(steps)})

    def act(self, who: str, body: bytes) -> bytes:
        """Pause, resume or abort the rollout under way; return its new step as JSON.

        Raises:
            RequestError: 400 or 422 if the body is not right, 409 if there is none, or it moved on meanwhile.
        """
        given = read_json(body)
        act = given.get("act") if isinstance(given, dict) and len(given) == 1 else None
        if act not in _ACTS:
            raise RequestError(422, f"the body must be {{'act': ...}} with one of {', '.join(_ACTS)}")
        step = self._rollouts.latest()
        if step is None or step.is_over:
            raise RequestError(409, "no rollout is under way")
        self._audit.note(who, f"rollout {act}", {"rollout": step.rollout, "step": step.number})
        reason = f"{act} by {who}"
        if act == "abort" and step.mode == "watch":
            raise RequestError(409, f"version {step.serves} is champion already and only watched")
        if act == "abort":
            new = self._rollouts.follow(
                step, stage="aborted", share=0.0, paused=False, reasons=(reason,), figures={}
            )
        else:
            now = step.time if self._clock is None else self._clock.now()
            try:
                new = self._rollouts.pause(step, paused=act == "pause", now=now, reason=reason)
            except ServingError as err:
                raise RequestError(409, str(err)) from None
        if new is None:
            raise RequestError(409, "the rollout has moved on meanwhile; look again")
        return orjson.dumps(encode(new))


def _asked(body: bytes) -> tuple[str, str | None]:
    """Return the reason and the id of a request for a retraining."""
    if not body:
        return _DEFAULT, None
    given = read_json(body)
    if not isinstance(given, dict) or set(given) - {"reason", "id"}:
        raise RequestError(422, "the body must be a JSON object with nothing but 'reason' and 'id'")
    return _text(given.get("reason", _DEFAULT), "reason", MAX_REASON), (
        _text(given["id"], "id", MAX_ID) if "id" in given else None
    )


def _text(value: object, field: str, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise RequestError(422, f"field {field!r}: must be a string of 1 to {longest} characters")
    return value
