"""A bundle's predictor as a BentoML service."""

import os
from typing import Any

import bentoml

from raywf.models.bundle import load_bundle


@bentoml.service(traffic={"timeout": 30})
class Served:
    """Answers one row of named values."""

    def __init__(self) -> None:
        self.predictor = load_bundle(os.environ["BENCH_BUNDLE"])

    @bentoml.api
    def predict(self, features: dict[str, Any]) -> list[float]:
        return list(self.predictor.predict_row(features))
