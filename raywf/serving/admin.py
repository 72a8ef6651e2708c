"""What may be asked of the running system over HTTP besides predictions; each act is kept with its caller."""

from __future__ import annotations

import orjson

from raywf.core.audit import Audit
from raywf.core.journal import Journal
from raywf.serving.requests import MAX_REASON, RequestError

_DEFAULT = "asked for over HTTP"


class AdminDesk:
    """Writes down what is asked for, for the controller to carry out, and who asked.

    Its methods write to the stores and so may wait: call them in a thread.
    """

    def __init__(self, root: str, workflow: str) -> None:
        self._journal, self._audit = Journal(root, workflow), Audit(root, workflow)

    def retrain(self, who: str, body: bytes) -> bytes:
        """Ask for a retraining; the body is empty or has a ``reason``. Return the JSON answer.

        Raises:
            RequestError: 400 or 422 if the body is not right.
        """
        reason = _reason(body)
        request = self._journal.request(reason)
        self._audit.note(who, "retrain", {"request": request, "reason": reason})
        return orjson.dumps({"request": request})


def _reason(body: bytes) -> str:
    if not body.strip():
        return _DEFAULT
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise RequestError(400, f"the body is not JSON: {err}") from None
    if not isinstance(given, dict) or set(given) - {"reason"}:
        raise RequestError(422, "the body must be a JSON object with nothing but 'reason'")
    reason = given.get("reason", _DEFAULT)
    if not isinstance(reason, str) or not 1 <= len(reason) <= MAX_REASON:
        raise RequestError(422, f"field 'reason': must be a string of 1 to {MAX_REASON} characters")
    return reason
