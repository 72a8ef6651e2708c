"""A bare Starlette application around a bundle's predictor: no check, no key, no log."""

import os

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raywf.models.bundle import load_bundle

predictor = load_bundle(os.environ["BENCH_BUNDLE"])


async def predict(request: Request) -> Response:
    row = orjson.loads(await request.body())
    return Response(orjson.dumps({"scores": predictor.predict_row(row["features"])}))


app = Starlette(routes=[Route("/v1/predict", predict, methods=["POST"])])
