"""Runs in Evidently's own environment: its drift preset on some columns of two Parquet files."""

import json
import resource
import sys
import time

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main() -> None:
    asked = json.loads(sys.stdin.read())
    columns = [*asked["numbers"], *asked["categories"]]
    start, cpu = time.perf_counter(), time.process_time()
    definition = DataDefinition(numerical_columns=asked["numbers"], categorical_columns=asked["categories"])
    sides = [
        Dataset.from_pandas(pd.read_parquet(path, columns=columns), data_definition=definition)
        for path in (asked["current"], asked["reference"])
    ]
    report = Report([DataDriftPreset()]).run(sides[0], sides[1])
    found = report.dict()
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    drifted = []
    for metric in found["metrics"]:
        config = metric["config"]
        if "column" in config and isinstance(metric["value"], float):
            limit = config["threshold"]
            value = float(metric["value"])
            if value < limit if "p_value" in config["method"] else value >= limit:
                drifted.append(config["column"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"s": seconds, "cpu_s": cpu_s, "peak_gib": peak, "drifted": drifted}))


main()
