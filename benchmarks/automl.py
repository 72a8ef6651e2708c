"""raywf's search beside FLAML 2.7 and AutoGluon 1.6.3: the same tables, splits, seconds and two cores.

``python benchmarks/automl.py [--quick | --tables a,b] [--peers flaml,medium,good,best] [--seeds 1]`` runs
one contender at a time, each in a process of its own, the peers in virtual environments that are made at
first use; medium, good and best are AutoGluon's presets. A table's rows are split 75 to 25 by seed, and the
loss is 1 - AUC, log-loss or RMSE on the 25. Each result is kept as a file below ``--folder`` and not run
again; ``--again raywf`` forgets one contender's. The tables are those of the folder that ``RAYWFTEST_DATA``
names. Exits 0 only if every run has ended and raywf did not fail in all of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from automl_runners.environments import NotInstalled, peer_python
from automl_runners.standings import print_losses, summarise
from automl_runners.tables import QUICK, NoTables, Table, find_tables, write_split

RUNNERS = Path(__file__).resolve().parent / "automl_runners"
PRESETS = {"medium": "medium_quality", "good": "good_quality", "best": "best_quality"}
PEERS = ("flaml", *PRESETS)
CORES = 2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_FIGURES = ("score", "loss", "fit_s", "overrun", "row_p50_ms", "rows_per_s", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One contender on one split of one table."""

    table: Table
    seed: int
    contender: str
    budget_s: float

    @property
    def name(self) -> str:
        return f"{self.table.name}-{self.seed}-{self.contender}-{self.budget_s:g}"

    @property
    def limit_s(self) -> float:
        """Seconds after which the process is killed, its imports and its answers included."""
        return 5 * self.budget_s + 120


class Results:
    """The finished runs of a folder, a JSON file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "results"
        self._folder.mkdir(parents=True, exist_ok=True)

    def find(self, run: Run) -> dict[str, Any] | None:
        """Return a run's result, or None while it has none."""
        path = self._path(run)
        return dict(json.loads(path.read_text())) if path.exists() else None

    def keep(self, run: Run, found: dict[str, Any]) -> dict[str, Any]:
        """Store what a runner found, whole or not at all, and return the whole result."""
        result = {
            "contender": run.contender,
            "table": run.table.name,
            "seed": run.seed,
            "budget_s": run.budget_s,
            "metric": run.table.metric,
            **{key: found.get(key) for key in _FIGURES},
        }
        partial = self._path(run).with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1))
        partial.replace(self._path(run))
        return result

    def forget(self, run: Run) -> None:
        """Remove a run's result, if there is one."""
        self._path(run).unlink(missing_ok=True)

    def _path(self, run: Run) -> Path:
        return self._folder / f"{run.name}.json"


def interpreters(folder: Path, contenders: set[str]) -> dict[str, str]:
    """Return each contender's Python; the peers' environments are made where they are absent."""
    found = {"raywf": sys.executable}
    for name in sorted(contenders - {"raywf"}):
        found[name] = str(peer_python(folder, "autogluon" if name in PRESETS else name))
    return found


def carry_out(run: Run, python: str, logs: Path) -> dict[str, Any]:
    """Return what the run's process found, or why there is nothing."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{run.name}.log"
    with tempfile.TemporaryDirectory(prefix="rwf-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = write_job(run, folder)
        peer = "autogluon" if run.contender in PRESETS else run.contender
        command = [*_pinned(), python, str(RUNNERS / f"{peer}_runner.py"), str(job)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(run),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=run.limit_s)
            except subprocess.TimeoutExpired:
                return {"error": f"killed after {run.limit_s:g} s"}
            finally:
                end(process)
        out = folder / "result.json"
        if out.exists():
            return dict(json.loads(out.read_text()))
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return {"error": f"ended with {code}: {last}"}


def write_job(run: Run, folder: Path) -> Path:
    """Write the split and the job file that names it."""
    train, test = write_split(run.table, run.seed, folder)
    job = {
        "train": str(train),
        "test": str(test),
        "label": run.table.label,
        "task": run.table.task,
        "metric": run.table.metric,
        "budget_s": run.budget_s,
        "cores": CORES,
        "seed": run.seed,
        "preset": PRESETS.get(run.contender, ""),
        "out": str(folder / "result.json"),
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a runner that has not ended, and all that it started: Ray's processes leave its group."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _pinned() -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", ",".join(map(str, cores[:CORES]))] if len(cores) > CORES else []


def _environment(run: Run) -> dict[str, str]:
    # raywf's own commands give each process one thread: two trials run side by side
    threads = 1 if run.contender == "raywf" else CORES
    return os.environ | dict.fromkeys(_THREADS, str(threads))


def run_all(runs: Sequence[Run], results: Results, folder: Path) -> None:
    """Carry out the runs without a result, one after the other, and keep each result at once."""
    missing = [run for run in runs if results.find(run) is None]
    if len(missing) < len(runs):
        _say(f"{len(runs) - len(missing)} of {len(runs)} runs have ended before")
    pythons = interpreters(folder, {run.contender for run in missing})
    for i, run in enumerate(missing, start=1):
        result = results.keep(run, carry_out(run, pythons[run.contender], folder / "logs"))
        figures = f"failed: {result['error']}"
        if result["error"] is None:
            figures = (
                f"{result['metric']} {result['score']:.5g} after {result['fit_s']:.1f} s; "
                f"one row {result['row_p50_ms']:.3g} ms, {result['rows_per_s']:,.0f} rows/s"
            )
        _say(f"{i}/{len(missing)} {run.table.name} seed {run.seed} {run.contender}: {figures}")


def report(runs: Sequence[Run], results: Results, contenders: Sequence[str]) -> int:
    """Print the losses and, as the last line, the figures; return the exit code."""
    found = [result for result in map(results.find, runs) if result is not None]
    print_losses(found, contenders)
    figures = summarise(found, contenders) | {
        "tables": len({run.table.name for run in runs}),
        "seeds": len({run.seed for run in runs}),
        "budget_s": runs[0].budget_s,
        "runs": len(runs),
        "ended": len(found),
    }
    print(json.dumps(figures, allow_nan=False), flush=True)
    alive = any(r["contender"] == "raywf" and r["error"] is None for r in found)
    return 0 if alive and len(found) == len(runs) else 1


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    which.add_argument("--tables", type=_names, default=(), help="names with commas between (default: all)")
    parser.add_argument(
        "--peers", type=_peers, default=PEERS, help=f"of {','.join(PEERS)} (default: all; '': raywf alone)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="splits of each table (default: 1)")
    parser.add_argument("--budget", type=float, default=60, help="seconds of one fit (default: 60)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.home() / ".cache" / "raywf-bench" / "automl",
        help="where results, logs and the peers' environments are kept (default: %(default)s)",
    )
    parser.add_argument("--again", choices=("raywf", *PEERS), help="forget this contender's results first")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.budget < 1:
        parser.error("--seeds and --budget are at least 1")
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _peers(text: str) -> tuple[str, ...]:
    unknown = sorted(set(_names(text)) - set(PEERS))
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return _names(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run from the command line."""
    options = read_options()
    contenders = ("raywf", *options.peers)
    try:
        runs = plan_runs(options, contenders)
    except NoTables as err:
        _say(str(err))
        return 1
    folder = options.folder.expanduser().absolute()
    results = Results(folder)
    for run in runs:
        if run.contender == options.again:
            results.forget(run)
    # told to stop, end as at Ctrl-C: the contender's processes have to be killed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_all(runs, results, folder)
    except NotInstalled as err:
        _say(str(err))
        return 1
    except KeyboardInterrupt:
        _say("stopped; what has ended is kept")
        report(runs, results, contenders)
        return 130
    return report(runs, results, contenders)


def plan_runs(options: argparse.Namespace, contenders: Sequence[str]) -> list[Run]:
    """Return what is asked for, table by table, so that a table's line is whole early."""
    return [
        Run(table=table, seed=seed, contender=contender, budget_s=options.budget)
        for table in find_tables(QUICK if options.quick else options.tables)
        for seed in range(options.seeds)
        for contender in contenders
    ]


if __name__ == "__main__":
    sys.exit(main())
