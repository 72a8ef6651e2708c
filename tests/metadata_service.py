"""A machine's metadata service as AWS, Google and Azure answer, on a port of this one, for a test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MetadataService:
    """What it answers: `ends` is when the machine is taken back, None while nobody wants it.

    `token` is the one session's token that AWS' answers are given for; `away` lets it answer nothing but 503.
    `asked` are the paths of the questions, in order.
    """

    def __init__(self) -> None:
        self.ends: datetime | None = None
        self.away = False
        self.token = "token-1"
        self.name = "raywf-worker-7"
        self.asked: list[str] = []
        self.address = ""

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        """Return status and text of an answer."""
        self.asked.append(path)
        if self.away:
            return 503, "away"
        if path.startswith("/latest/"):
            return self._aws(method, path.removeprefix("/latest/"), headers)
        if path.startswith("/computeMetadata/"):
            good = headers.get("Metadata-Flavor") == "Google" and path.endswith("/instance/preempted")
            return (200, "TRUE" if self.ends else "FALSE") if good else (403, "")
        if headers.get("Metadata") != "true":
            return 400, "Bad request: the header Metadata is missing"
        if path.startswith("/metadata/instance/compute/name?"):
            return 200, self.name
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": self._events()})

    def _aws(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        if path == "api/token":
            asked = method == "PUT" and headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            return (200, self.token) if asked else (400, "")
        if headers.get("X-aws-ec2-metadata-token") != self.token:
            return 401, "Unauthorized"
        action = {"action": "terminate", "time": f"{self.ends:%Y-%m-%dT%H:%M:%SZ}"} if self.ends else None
        known = {
            "meta-data/instance-id": "i-0123456789abcdef0",
            "meta-data/instance-type": "m7i.2xlarge",
            "meta-data/spot/instance-action": json.dumps(action) if action else None,
        }
        found = known.get(path)
        return (404, "Not Found") if found is None else (200, found)

    def _events(self) -> list[dict[str, Any]]:
        """Return the events of a scale set: another machine's too."""
        event = {"EventId": "1", "EventType": "Preempt", "ResourceType": "VirtualMachine"}
        other = event | {"Resources": ["raywf-worker-9"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"}
        freeze = event | {"EventType": "Freeze", "Resources": [self.name], "NotBefore": ""}
        if self.ends is None:
            return [other, freeze]
        when = format_datetime(self.ends.astimezone(UTC), usegmt=True)
        return [other, freeze, event | {"Resources": [self.name], "NotBefore": when}]


@contextmanager
def metadata_service() -> Iterator[MetadataService]:
    """Serve on loopback until the block's end."""
    service = MetadataService()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = service.answer(self.command, self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
