"""Two tables of many columns compared: raywf in one process and over local nodes, beside Evidently.

``python benchmarks/drift.py [--rows 300000] [--columns 1000] [--peer-columns 100] [--nodes 1,2,4]`` writes
two Parquet files of so many rows each (four fifths of the columns numbers, the rest categories; one in ten
drifted: moved by half a standard deviation, two shares swapped, a fifth missing or a new category), and
compares them from the files to the figures: raywf all of the columns, Evidently's drift preset, in an
environment of its own, the first `--peer-columns` of the same files; its seconds are scaled by the share of
columns, which `evidently_scaled_by` tells. Both have two cores; imports are not counted. Then raywf does it
as tasks of a Ray cluster of 1, 2 and 4 nodes of one CPU each, on this same machine: with more nodes than
cores the time cannot fall further. Exits 0 only if each found the columns that drifted, and no others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from automl_runners.environments import NotInstalled, peer_python  # noqa: E402 the folder is a set of scripts

CACHE = Path.home() / ".cache" / "raywf-bench" / "drift"
GROUP_ROWS = 50_000
LETTERS = np.array(list("abcdefghij"), dtype=object)
SHARES = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
LIMIT_S = 3_600.0


def column_names(count: int) -> tuple[list[str], list[str]]:
    """Return the numbers' and the categories' names; of each the drifted ones are spread evenly."""
    numbers = count * 4 // 5
    return [f"n{i:04}" for i in range(numbers)], [f"c{i:04}" for i in range(count - numbers)]


def drifts(name: str) -> bool:
    return int(name[1:]) % 10 == 3


def one_group(names: list[str], rows: int, rng: np.random.Generator, *, moved: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name in names:
        number, odd = int(name[1:]), moved and drifts(name)
        if name[0] == "n":
            values = rng.normal(number, 1 + number % 7, rows)
            gone = odd and number % 20 == 3
            if odd and not gone:
                values += 0.5 * (1 + number % 7)
            columns[name] = pa.array(values, mask=rng.random(rows) < 0.2 if gone else None)
            continue
        shares = np.append(SHARES, 0.0)
        if odd and number % 20 == 3:
            shares[0], shares[3] = shares[3], shares[0]
        elif odd:
            shares[0], shares[9] = 0.0, shares[0]
        codes = rng.choice(len(shares), rows, p=shares)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(LETTERS))
    return pa.table(columns)


def write(path: Path, names: list[str], rows: int, *, seed: int, moved: bool) -> str:
    """Write a table, as pyarrow does by default, without holding all of it."""
    rng = np.random.default_rng(seed)
    writer = None
    for begin in range(0, rows, GROUP_ROWS):
        table = one_group(names, min(GROUP_ROWS, rows - begin), rng, moved=moved)
        writer = writer or pq.ParquetWriter(path, table.schema, store_schema=False)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return str(path)


def run(python: str | Path, runner: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Run one contender in a process of its own, on two cores."""
    command = [str(python), str(HERE / "drift_runners" / runner)]
    cores = sorted(os.sched_getaffinity(0))[:2]
    done = subprocess.run(
        command,
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT_S,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = {name: value for name, value in found.items() if name != "drifted"}
    print(
        runner, asked.get("nodes", ""), shown, len(found["drifted"]), "drifted", file=sys.stderr, flush=True
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each table")
    parser.add_argument("--columns", type=int, default=1000)
    parser.add_argument(
        "--peer-columns", type=int, default=100, help="columns for Evidently; 0: leave it out"
    )
    parser.add_argument("--nodes", default="1,2,4", help="clusters of so many nodes; empty: none")
    options = parser.parse_args()
    numbers, categories = column_names(options.columns)
    with tempfile.TemporaryDirectory(prefix="rwf-drift-", dir=os.environ.get("TMPDIR")) as folder:
        names = [*numbers, *categories]
        asked: dict[str, Any] = {"nodes": 0}
        for seed, name in enumerate(("reference", "current")):
            path = Path(folder) / f"{name}.parquet"
            asked[name] = write(path, names, options.rows, seed=seed, moved=name == "current")
            print(f"{name}: {path.stat().st_size / 2**30:.2f} GiB", file=sys.stderr, flush=True)
        asked["warm"] = write(Path(folder) / "warm.parquet", names[:1], GROUP_ROWS, seed=2, moved=False)
        return measure(asked, numbers, categories, options)


def measure(
    asked: dict[str, Any], numbers: list[str], categories: list[str], options: argparse.Namespace
) -> int:
    wanted = sorted(name for name in (*numbers, *categories) if drifts(name))
    ours = run(sys.executable, "raywf_runner.py", asked)
    good = ours["drifted"] == wanted and ours["rows"] == options.rows
    result: dict[str, Any] = {
        "raywf_s": round(ours["s"], 2),
        "raywf_cpu_s": round(ours["cpu_s"], 2),
        "peak_gib": round(ours["peak_gib"], 2),
        "rows": options.rows,
        "columns": options.columns,
        "drifted": len(wanted),
    }
    if options.peer_columns:
        share = min(1.0, options.peer_columns / options.columns)
        some = {
            "numbers": numbers[: round(len(numbers) * share)],
            "categories": categories[: round(len(categories) * share)],
        }
        theirs = run(peer_python(CACHE, "evidently"), "evidently_runner.py", {**asked, **some})
        scale = options.columns / (len(some["numbers"]) + len(some["categories"]))
        result |= {
            "evidently_s": round(theirs["s"] * scale, 2),
            "evidently_cpu_s": round(theirs["cpu_s"] * scale, 2),
            "evidently_scaled_by": round(scale, 2),
            "evidently_peak_gib": round(theirs["peak_gib"], 2),
            "evidently_drifted": sorted(theirs["drifted"]),
            "ratio": round(theirs["s"] * scale / ours["s"], 1),
            "cpu_ratio": round(theirs["cpu_s"] * scale / ours["cpu_s"], 1),
        }
        result["evidently_drifted"] = len(theirs["drifted"])
    nodes = [int(text) for text in options.nodes.split(",") if text]
    found = {n: run(sys.executable, "raywf_runner.py", {**asked, "nodes": n}) for n in nodes}
    result["nodes_s"] = {str(n): round(one["s"], 2) for n, one in found.items()}
    good &= all(one["drifted"] == wanted for one in found.values())
    print(json.dumps({**result, "found_all": good}))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotInstalled as err:
        sys.exit(str(err))
