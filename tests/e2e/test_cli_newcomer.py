"""A newcomer's own tables through the command line: init, edit, run, serve, predict; and what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from raywf.loop.scores import read_scores
from raywf.serving.environment import free_ports

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from command_line import Project, cluster_processes, command_of, post, until  # noqa: E402 the folder is not a package

pytestmark = pytest.mark.timeout(280)
DATA = Path(os.environ.get("RAYWFTEST_DATA") or HERE.parents[2] / "shared" / "data")
QUICK = "search: {budget_s: 40, trials: 2, folds: 2, families: [lightgbm, linear]}"
CUSTOMER = {"tenure": 3, "plan": "monthly", "charges": 88.5, "support": False}


def write_customers(path: Path) -> None:
    """Write a table of customers who left or stayed, without any time."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "tenure", "plan", "charges", "support", "churn"])
        for i in range(1500):
            tenure, plan = draw.randint(0, 70), draw.choice(["monthly", "yearly"])
            share = 0.05 + 0.5 * (plan == "monthly") + 0.3 * (tenure < 12)
            churn = "Yes" if draw.random() < share else "No"
            charges = "" if i % 50 == 0 else round(draw.uniform(20, 110), 2)
            writer.writerow([f"c{i:04}", tenure, plan, charges, draw.choice(["true", "false"]), churn])


def begin(folder: Path, table: Path, *changes: tuple[str, str]) -> Project:
    """Write the first workflow.yaml by `raywf init` and edit it as text."""
    project = Project(folder)
    Project(folder.parent).raywf("init", folder.name)
    project.edit(
        ("path: data/table.csv ", f"path: {table} "),
        ("search: {budget_s: 60} ", f"{QUICK} "),
        ("port: 8000", f"port: {free_ports(1)[0]}"),
        *changes,
    )
    return project


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project of one CSV, its first model made by `raywf run` and in service."""
    folder = tmp_path_factory.mktemp("newcomer") / "churn"
    folder.mkdir()
    write_customers(folder / "customers.csv")
    project = begin(
        folder,
        Path("customers.csv"),
        ("label: label ", "label: churn "),
        ("keys: [id] ", "keys: [customer] "),
        ('# positive: "yes"', 'positive: "Yes"'),
    )
    try:
        project.first = project.raywf("run")  # type: ignore[attr-defined]
        project.url = project.raywf("serve", "up")["url"]  # type: ignore[attr-defined]
        yield project
    finally:
        project.try_raywf("serve", "down")


def test_run_promotes_the_first_model(churn: Any) -> None:
    """It beats the baseline, by a score that the table's pattern allows."""
    assert churn.first["status"] == "promoted"
    assert churn.first["verdict"]["against"] == "baseline"
    assert 0.7 < churn.first["verdict"]["challenger"] < 0.99
    assert churn.first["sweep"]["spent_s"] <= 40


def test_models_list_shows_it(churn: Project) -> None:
    """One version, the champion, with its lineage."""
    (version,) = churn.raywf("models", "list")
    assert (version["version"], version["status"]) == ("1", "champion")
    assert "champion" in version["aliases"]
    assert version["snapshot_id"]
    assert version["sweep_id"]


def test_a_prediction_by_http(churn: Any) -> None:
    """By column names, and the answer is in the labels' own words."""
    status, answer = post(f"{churn.url}/v1/predict", {"features": CUSTOMER})
    assert status == 200
    assert answer["model_version"] == "1"
    (found,) = answer["predictions"]
    assert set(found["probabilities"]) == {"No", "Yes"}
    assert found["probabilities"]["Yes"] > 0.5


def test_a_wrong_row_by_http(churn: Any) -> None:
    """422, naming the field."""
    status, answer = post(f"{churn.url}/v1/predict", {"features": CUSTOMER | {"tenure": "long"}})
    assert status == 422
    assert "tenure" in json.dumps(answer)


def test_an_outcome_by_http(churn: Any) -> None:
    """The label of a prediction, in the table's own words."""
    _, answer = post(f"{churn.url}/v1/predict", {"features": CUSTOMER})
    outcome = {"id": answer["predictions"][0]["id"], "label": "Yes"}
    assert post(f"{churn.url}/v1/outcomes", outcome) == (202, {"accepted": 1})


def test_openapi_names_the_columns(churn: Any) -> None:
    """Who opens the document sees what a row may hold."""
    with urllib.request.urlopen(f"{churn.url}/openapi.json", timeout=10) as response:
        assert '"tenure"' in response.read().decode()


def test_serve_status_shows_the_replicas(churn: Any) -> None:
    """Running, each replica with the champion's version, the monitor with its counts."""
    found = churn.raywf("serve", "status")
    assert (found["status"], found["url"]) == ("RUNNING", churn.url)
    assert [r["version"] for r in found["replicas"]] == ["1", "1"]
    assert found["monitor"]["predictions"] >= 1


def test_a_table_is_scored(churn: Any) -> None:
    """By the champion, each row once; the command again finds nothing to do, and so does a job."""
    words = ["--input", "customers.csv", "--output", "scores"]
    made = churn.raywf("score", *words)
    assert (made["rows"], made["version"], made["was_finished"]) == (1500, "1", False)
    table = read_scores(str(churn.folder / "scores"))
    assert table.column_names == [
        "customer",
        "prediction",
        "probability_No",
        "probability_Yes",
        "model_version",
    ]
    assert table["customer"].to_pylist() == [f"c{i:04}" for i in range(1500)]
    assert churn.raywf("score", *words)["was_finished"]
    job = churn.raywf("job", "submit", "score", "--wait", *words)
    assert job["status"] == "SUCCEEDED"
    assert "was finished before, nothing to do: 1,500 rows" in churn.raywf("job", "logs", job["id"])["logs"]


def test_a_snapshot_is_scored_by_a_job(churn: Any) -> None:
    """The newest one, into a folder of the user's own."""
    job = churn.raywf("job", "submit", "score", "--wait", "--output", "snapshot-scores")
    assert job["status"] == "SUCCEEDED"
    table = read_scores(str(churn.folder / "snapshot-scores"))
    assert table.num_rows == churn.raywf("snapshot", "list")[-1]["rows"]


def test_prometheus_is_told_where_the_loop_stands(churn: Any) -> None:
    """By the controller, at the port at which Ray serves the metrics of its node."""
    commands = " ".join(command_of(process) for process in cluster_processes(churn.folder))
    port = re.search(r"--metrics-export-port=(\d+)", commands)
    assert port

    def told() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=10) as response:
            text = response.read().decode()
        found = re.findall(r'(?m)^ray_raywf_(\w+)\{[^}]*replica="controller"[^}]*\} (\S+)$', text)
        return {name: float(value) for name, value in found}

    until(lambda: "champion_version" in told(), "the controller's figures")
    assert (told()["champion_version"], told()["well"]) == (1.0, 1.0)
    assert told()["champion_metric"] == pytest.approx(churn.first["verdict"]["challenger"])
    assert told()["spent_usd"] > 0


def test_serve_up_again_is_a_no_op(churn: Any) -> None:
    """The same URL, answered by the same process."""

    def replicas() -> set[int]:
        processes = cluster_processes(churn.folder)
        return {p.pid for p in processes if "ray::ServeReplica" in command_of(p)}

    before = replicas()
    assert churn.raywf("serve", "up") == {"url": churn.url}
    assert replicas() == before != set()


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (
            ["run", "--set", "serch.budget_s=3"],
            1,
            "SettingsError: .*unknown key 'serch'; did you mean 'search'",
        ),
        (["run", "--set", "search.trials=many"], 1, "SettingsError: .*expected int, got 'many'"),
        (["run", "-f", "nothing.yaml"], 1, "SettingsError: cannot read nothing.yaml.*raywf init"),
        (["run", "--set", "spine.path=nothing.csv"], 1, "SourceError: .*nothing.csv"),
        (["run", "--set", "spine.label=chrn"], 1, "SourceError: .*'chrn'.*did you mean 'churn'"),
        (["models", "show", "99"], 1, "RegistryError: no version '99' of 'churn'; known: 1"),
        (["models", "rollback"], 1, "RegistryError: 'churn' has no previous champion"),
        (["run", "--as-of", "yesterday"], 2, "Invalid value for '--as-of'"),
        (["modls"], 2, "No such command 'modls'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(churn: Project, words: list[str], code: int, reason: str) -> None:
    """On standard error, with what to do; nothing on standard output and no trace."""
    done = churn.try_raywf(*words)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(lines) == 1 if code == 1 else "Traceback" not in done.stderr
    assert re.search(reason, lines[-1]), lines


def test_a_leak_is_refused(churn: Project) -> None:
    """A column that tells the label is named, and nothing is trained."""
    rows = (churn.folder / "customers.csv").read_text().splitlines()
    leaking = [rows[0] + ",refund", *(f"{r},{int(r.endswith('Yes'))}" for r in rows[1:])]
    (churn.folder / "leaking.csv").write_text("\n".join(leaking) + "\n")
    done = churn.try_raywf("run", "--set", "spine.path=leaking.csv")
    assert done.returncode == 1
    assert "ValidationError" in done.stderr
    assert "'refund'" in done.stderr
    assert len(churn.raywf("models", "list")) == 1


def test_serve_up_without_a_champion(tmp_path: Path) -> None:
    """It says what comes first, and starts nothing."""
    write_customers(tmp_path / "customers.csv")
    project = begin(tmp_path / "fresh", tmp_path / "customers.csv")
    done = project.try_raywf("serve", "up")
    assert done.returncode == 1
    assert "NoVersionError: 'fresh' has no champion; 'raywf run' makes a first one" in done.stderr
    assert project.raywf("serve", "status")["status"] == "DOWN"


def test_init_does_not_overwrite(churn: Project) -> None:
    """The edited file stays."""
    done = Project(churn.folder.parent).try_raywf("init", churn.folder.name)
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert "customers.csv" in (churn.folder / "workflow.yaml").read_text()


def test_down_twice(churn: Project) -> None:
    """The second time there is nothing to take down."""
    assert churn.raywf("serve", "down") == {"was_up": True}
    assert churn.raywf("serve", "down") == {"was_up": False}
    assert churn.raywf("serve", "status")["status"] == "DOWN"


@pytest.mark.skipif(not (DATA / "tab_telco_churn").exists(), reason=f"no tab_telco_churn in {DATA}")
def test_real_churn_table(tmp_path: Path) -> None:
    """Seven thousand customers of a telephone company, as CSV, without a time."""
    table = pq.read_table(DATA / "tab_telco_churn" / "data.parquet")
    pacsv.write_csv(table, tmp_path / "telco.csv")
    project = begin(
        tmp_path / "telco",
        tmp_path / "telco.csv",
        ("label: label ", "label: Churn "),
        ("keys: [id] ", "keys: [] "),
        ("exclude: [] ", "exclude: [customerID] "),
    )
    found = project.raywf("run")
    assert found["status"] == "promoted"
    assert found["verdict"]["challenger"] > 0.8


@pytest.mark.skipif(not (DATA / "hotel_bookings").exists(), reason=f"no hotel_bookings in {DATA}")
def test_real_bookings_with_times(tmp_path: Path) -> None:
    """Will a booking be cancelled: event times, and labels that come weeks later."""
    project = begin(
        tmp_path / "bookings",
        DATA / "hotel_bookings" / "stream_lead90.parquet",
        ("label: label ", "label: is_canceled "),
        ("keys: [id] ", "keys: [] "),
        ("# event_time: asked_at ", "event_time: booking_date "),
        ("# label_time: known_at ", "label_time: label_date "),
    )
    found = project.raywf("run", "--as-of", "2016-06-01")
    assert found["status"] == "promoted"
    assert found["version"]["fitted_until"] <= "2016-06-01T00:00:00Z"
    assert found["verdict"]["challenger"] > 0.6
