"""Requests that no endpoint should take: invented, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from raywf.testing import SMALL_ROW

Request = tuple[str, str, bytes]
_VALUES: list[Any] = [
    [], {}, [[]], {"a": {"b": []}}, "x" * 300, "\u0000", [1, 2], {"distance": 1}, "NaN", "\ud7ff",
]  # fmt: skip


def _wrong_value(rng: random.Random) -> bytes:
    field = rng.choice(["distance", "departure", "delay"])
    return json.dumps({"features": {**SMALL_ROW, field: rng.choice([*_VALUES, True])}}).encode()


def _wrong_fields(rng: random.Random) -> bytes:
    row = dict(SMALL_ROW)
    if rng.random() < 0.5:
        del row[rng.choice(list(row))]
    else:
        row[rng.choice(["distanc", "", "x" * 500, "__proto__", "é"])] = 1
    rows = [{"features": SMALL_ROW}] * rng.randint(0, 3) + [{"features": row}]
    return json.dumps({"rows": rows}, default=dict).encode()


def _not_json(rng: random.Random) -> bytes:
    good = json.dumps({"features": dict(SMALL_ROW)}).encode()
    cut = rng.randint(0, len(good) - 1)
    noise = rng.randbytes(rng.randint(1, 40))
    return rng.choice(
        [good[:cut], good[:cut] + b"\xff" + noise, noise + b"\xc3\x28", good.replace(b"1400.0", b"NaN"),
         good.replace(b"1400.0", b"Infinity"), good.replace(b"1400.0", b"1e999"), b"", b"\x00" * 50]
    )  # fmt: skip


def _nested(rng: random.Random) -> bytes:
    depth = rng.choice([50, 900, 5000, 90_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"features":', b"}"), (b'{"rows":[', b"]}")])
    depth = min(depth, 190_000 // (len(opening) + len(closing)))
    return opening * depth + b"1" + closing * (depth if rng.random() < 0.5 else 0)


def _huge(rng: random.Random) -> bytes:
    size = rng.choice([200_001, 300_000, 1_000_000])
    return b'{"features": {"distance": "' + b"x" * size + b'"}}'


def _wrong_shape(rng: random.Random) -> bytes:
    value = rng.choice([*_VALUES, None, 3, True])
    body = rng.choice(
        [value, {"rows": value}, {"features": value}, {"features": dict(SMALL_ROW), "id": [value]},
         {"features": dict(SMALL_ROW), "time": "x"}, {"rows": [value, value]}, {"outcomes": value}]
    )  # fmt: skip
    return json.dumps(body).encode()


_BODIES = (_wrong_value, _wrong_fields, _not_json, _nested, _huge, _wrong_shape)
_PATHS = ["/", "/v1", "/v1/predict/", "/v1/../x", "/v2/predict", "/%00", "/v1/predict%20", "//v1/predict"]


def garbage(count: int, *, seed: int = 0) -> Iterator[Request]:
    """Yield (method, path, body) of requests that each deserve a 4xx."""
    rng = random.Random(seed)
    for i in range(count):
        if i % 10 == 9:
            wrong_path = rng.random() < 0.5
            path = rng.choice(_PATHS) if wrong_path else "/v1/predict"
            method = rng.choice(
                ["GET", "POST"] if wrong_path else ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]
            )
            yield method, path, b""
            continue
        make = _BODIES[i % 10 % len(_BODIES)]
        path = "/v1/predict" if rng.random() < 0.8 else "/v1/outcomes"
        yield "POST", path, make(rng)
