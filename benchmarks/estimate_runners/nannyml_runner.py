"""Runs in NannyML's own environment: CBPE or DLE on one stream's rows, a chunk a block."""

import json
import sys
import time

import nannyml
import pandas as pd

nannyml.disable_usage_logging()


def main() -> None:
    asked = json.loads(sys.stdin.read())
    reference, later = pd.read_parquet(asked["reference"]), pd.read_parquet(asked["later"])
    later = later.drop(columns="y_true")
    start = time.perf_counter()
    common = {"y_true": "y_true", "y_pred": "y_pred", "chunk_size": asked["block_rows"]}
    if asked["task"] == "regression":
        made = nannyml.DLE(
            feature_column_names=asked["features"],
            metrics=asked["metrics"],
            tune_hyperparameters=False,
            **common,
        )
    else:
        likely = {c: f"p_{c}" for c in asked["classes"]} if asked["task"] == "multiclass" else "p_1"
        kind = "classification_" + asked["task"]
        made = nannyml.CBPE(y_pred_proba=likely, problem_type=kind, metrics=asked["metrics"], **common)
    made.fit(reference)
    found = made.estimate(later).filter(period="analysis").to_df()
    values = {m: [float(v) for v in found[(m, "value")]] for m in asked["metrics"]}
    print(json.dumps({"values": values, "s": time.perf_counter() - start}))


main()
