"""Checkpoints: going on from one is as folding the log from its start, and a bad one is left aside."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.ids import digest_bytes
from raywf.core.metrics import METRICS, Metric
from raywf.core.own import OwnScore, read_code
from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.service import Service
from raywf.core.settings import MonitorSettings
from raywf.monitor import rowfiles
from raywf.monitor.attribution import BinLosses
from raywf.monitor.checkpoint import CheckpointError, Checkpoints, _holds
from raywf.monitor.expectations import Expectations
from raywf.monitor.fold import Fold, FoldState
from raywf.monitor.histogram import Histogram
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.columns import parse_columns
from raywf.outcomes.lines import to_line

START = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PROFILE = (
    ColumnProfile(name="x", kind="number", edges=(0.0, 1.0), counts=(10, 10, 10)),
    ColumnProfile(name="s", kind="category", values=("a", "b"), counts=(20, 10, 0)),
)
EXPECTED = Expectations(
    metric=None,
    loss=None,
    by_bin=BinLosses(rows=(), sums=(), squares=()),
    answers=Histogram(edges=(0.5,), counts=(30, 10)),
    labels=Histogram(edges=(0.5,), counts=(20, 20)),
)
TWO = Reference(version="1", task="binary", classes=("no", "yes"), profile=PROFILE, expectations=EXPECTED)
VERSIONS = {
    "1": TWO,
    "2": dataclasses.replace(TWO, version="2", profile=PROFILE[:1]),
    "3": Reference(version="3", task="multiclass", classes=("no", "yes", "maybe")),
}
LONG = MonitorSettings(window=timedelta(days=1), min_labelled=2)
SHORT = dataclasses.replace(LONG, horizon=timedelta(days=2))


def prediction(identity, hour, version="1", score=0.3, **features):
    scores = (score,) if version != "3" else (score, 0.5 - score / 2, 0.5 - score / 2)
    time = START + hour * HOUR
    return Prediction(id=identity, time=time, version=version, features=features, scores=scores)


def outcome(identity, hour, label="yes", value=None):
    return Outcome(id=identity, time=START + hour * HOUR, label=label, value=value)


def service(identity, hour, version, answered, times):
    time = START + hour * HOUR
    facts = {"answered": answered, "refused": 1, "failed": 2, "cpu_s": 0.1 * answered, "length_s": 86_400.0}
    return Service(id=identity, time=time, version=version, times=times, **facts)


def told(fold):
    """All that can be asked of a fold."""
    ids = [f"{i}" for i in "abcdef"]
    return [fold.evidence(v) for v in "123"], fold.watermark, fold.counts(), fold.versions, fold.outcomes(ids)


class Monitor:
    """A fold that is fed with lines, and may be ended and go on from a checkpoint."""

    def __init__(self, folder, chosen, known):
        self.chosen, self.known = chosen, known
        self.checkpoints = Checkpoints(Path(folder), chosen, metric=METRICS["log_loss"])
        self.fold = Fold(chosen, known, metric=METRICS["log_loss"])

    def read(self, records):
        self.fold.take(parse_columns(b"".join(map(to_line, records))))
        self.fold.update(())

    def restart(self):
        self.checkpoints.save(self.fold.state, {}, {})
        self.checkpoints = Checkpoints(self.checkpoints._log, self.chosen, metric=METRICS["log_loss"])
        found = self.checkpoints.load(self.known)
        self.fold = Fold(self.chosen, self.known, metric=METRICS["log_loss"], state=found.state)


_ids = st.sampled_from("abcdef")
_hours = st.integers(0, 200).map(float)
_records = (
    st.builds(
        prediction,
        _ids,
        _hours,
        version=st.sampled_from("123"),
        score=st.sampled_from([0.1, 0.5]),
        x=st.none() | st.floats(-1, 2),
        s=st.sampled_from(["a", "c", None]),
    )
    | st.builds(
        outcome,
        _ids,
        _hours,
        st.sampled_from(["no", "yes", "maybe", True, 1, 1.0]),
        st.none() | st.floats(0, 9),
    )
    | st.builds(
        service,
        _ids,
        _hours,
        st.sampled_from("123"),
        st.integers(0, 3),
        st.dictionaries(st.just(-80), st.integers(0, 3)),
    )
)


@settings(max_examples=150, deadline=None)
@given(
    records=st.lists(_records, max_size=40),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=6),
    known_from=st.integers(0, 60),
    chosen=st.sampled_from([LONG, SHORT]),
    random=st.randoms(use_true_random=False),
)
def test_going_on_is_as_if_it_had_never_ended(records, cuts, known_from, chosen, random):
    """Cut anywhere, with repeats, late and corrected labels, and versions that become known on the way."""
    lines = [*records, *random.sample(records, len(records) // 2)]
    random.shuffle(lines)
    ends = [(0, False), *sorted((min(at, len(lines)), again) for at, again in cuts), (len(lines), False)]
    with tempfile.TemporaryDirectory() as folder:
        known = {"1": TWO}
        whole, cut = (Monitor(folder, chosen, KnownReferences(known)) for _ in range(2))
        for (start, _), (end, is_ended) in itertools.pairwise(ends):
            if end >= known_from:
                known |= VERSIONS
            whole.read(lines[start:end])
            cut.read(lines[start:end])
            if is_ended:
                cut.restart()
        assert told(cut.fold) == told(whole.fold)
        if chosen is LONG:  # nothing is closed, so that order and grouping do not matter either
            known |= VERSIONS
            whole.fold.update(())
            at_once = Fold(chosen, KnownReferences(VERSIONS), metric=METRICS["log_loss"])
            at_once.update(records)
            assert told(whole.fold) == told(at_once)


def saved(tmp_path, *, chosen=LONG):
    """A checkpoint of a few rows, and what was told of them."""
    log = tmp_path / "w"
    log.mkdir(exist_ok=True)
    (log / "1.jsonl").write_bytes(b"{}\n" * 10)
    monitor = Monitor(log, chosen, KnownReferences(VERSIONS))
    monitor.read([prediction(one, i, x=0.5) for i, one in enumerate("abc")] + [outcome("a", 9)])
    before = told(monitor.fold)
    monitor.checkpoints.save(monitor.fold.state, {"1.jsonl": 30}, {"more": 1})
    return log, before


def load(log, *, chosen=LONG, metric=METRICS["log_loss"], versions=None):
    references = KnownReferences(VERSIONS if versions is None else versions)
    return Checkpoints(log, chosen, metric=metric).load(references)


def rewritten(log, change):
    """Change a checkpoint's body and make the digest fit again."""
    path = log / "fold" / "checkpoint.json"
    head, _, body = path.read_bytes().partition(b"\n")
    data = orjson.loads(body)
    change(data)
    told_head = orjson.loads(head) | {"digest": digest_bytes(orjson.dumps(data))}
    path.write_bytes(orjson.dumps(told_head) + b"\n" + orjson.dumps(data))


def test_without_one_there_is_none(tmp_path):
    """The log is then read from its start."""
    assert load(tmp_path) is None


def test_cursor_and_what_is_beside_come_back(tmp_path):
    """As they were given; versions that cannot be asked for are those of before."""
    log, before = saved(tmp_path)
    found = load(log, versions={})
    assert (found.cursor, found.beside) == ({"1.jsonl": 30}, {"more": 1})
    assert told(Fold(LONG, KnownReferences({}), metric=METRICS["log_loss"], state=found.state)) == before


@pytest.mark.parametrize("name", ["checkpoint.json", "*.arrow"])
@pytest.mark.parametrize("change", ["cut", "bit"])
def test_a_damaged_one_is_refused(tmp_path, name, change):
    """Whatever is missing or turned in any of its files."""
    log, _ = saved(tmp_path)
    (path,) = (log / "fold").glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if change == "bit" else data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"damaged|cannot be read"):
        load(log)


def test_one_whose_rows_are_gone_is_refused(tmp_path):
    """Though it is whole itself."""
    log, _ = saved(tmp_path)
    (path,) = (log / "fold").glob("*.arrow")
    path.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load(log)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b'{"format":2}', b"[1]\n{}", b'{"a":1}\n{"b":2}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    """Something else by that name."""
    log, _ = saved(tmp_path)
    (log / "fold" / "checkpoint.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read|damaged"):
        load(log)


def test_a_newer_format_is_refused(tmp_path):
    """Of a version of raywf that is yet to come."""
    log, _ = saved(tmp_path)
    path = log / "fold" / "checkpoint.json"
    path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":3', 1))
    with pytest.raises(CheckpointError, match="of format 3, this version reads 2"):
        load(log)


def shorten(data):
    """Make evidence what it was before its last eleven figures were known."""
    for window in data["windows"]:
        window["evidence"] = window["evidence"] and [*window["evidence"][:-12], window["evidence"][-1]]
    data["closed"] = [[v, n, [*one[:-12], one[-1]]] for v, n, one in data["closed"]]


def test_evidence_of_an_older_version_is_reckoned_again(tmp_path):
    """From the rows that are there."""
    log, before = saved(tmp_path)
    rewritten(log, shorten)
    assert (
        told(Fold(LONG, KnownReferences(VERSIONS), metric=METRICS["log_loss"], state=load(log).state))
        == before
    )


def closed(tmp_path, change):
    """A checkpoint with a window that was closed, whose body was changed; load it."""
    log = tmp_path / "w"
    log.mkdir()
    monitor = Monitor(log, SHORT, KnownReferences(VERSIONS))
    monitor.read([prediction("a", 1), outcome("a", 2, value=3.0), prediction("b", 2000)])
    monitor.checkpoints.save(monitor.fold.state, {}, {})
    rewritten(log, change)
    return load(log, chosen=SHORT).state.closed


def test_evidence_of_closed_windows_may_lack_figures(tmp_path):
    """There are no rows, and what is not known has its default."""
    (one,) = closed(tmp_path, shorten).values()
    assert (one.rows, one.value_mean, one.value_rows) == (1, 3.0, 0)


def test_evidence_of_a_newer_version_is_refused(tmp_path):
    """Its figures are not known here."""
    with pytest.raises(CheckpointError, match="figures that this version does not know"):
        closed(tmp_path, lambda data: [one.insert(0, 1) for _, _, one in data["closed"]])


def test_a_body_that_lacks_something_is_refused(tmp_path):
    """Though its digest fits."""
    log, _ = saved(tmp_path)
    rewritten(log, lambda data: data.pop("late"))
    with pytest.raises(CheckpointError, match="cannot be read: KeyError"):
        load(log)


def test_other_settings_are_refused(tmp_path):
    """Windows would be others, or their evidence."""
    log, _ = saved(tmp_path)
    with pytest.raises(CheckpointError, match="other settings"):
        load(log, chosen=SHORT)
    with pytest.raises(CheckpointError, match="other settings"):
        load(log, metric=METRICS["roc_auc"])


def test_another_text_of_the_user_s_metric_is_refused(tmp_path):
    """What has its name was another figure, in closed windows too."""
    found = []
    for text in ("return 1.0", "return 2.0"):
        (tmp_path / "mine.py").write_text(f"def own(labels, scores):\n    {text}\n")
        of = OwnScore(read_code(f"{tmp_path}/mine.py:own"))
        found.append(Metric("own", True, ("binary",), of))
    one, other = found
    Checkpoints(tmp_path, LONG, metric=one).save(FoldState(), {}, {})
    assert load(tmp_path, metric=one) is not None
    with pytest.raises(CheckpointError, match="other settings"):
        load(tmp_path, metric=other)


def test_another_log_is_refused(tmp_path):
    """A segment that is gone, or shorter than what was read of it."""
    log, _ = saved(tmp_path)
    (log / "1.jsonl").write_bytes(b"{}\n")
    with pytest.raises(CheckpointError, match=r"segment 1\.jsonl is not as it was"):
        load(log)


def test_another_model_of_the_same_version_is_refused(tmp_path):
    """Such as of a registry that was made anew."""
    log, _ = saved(tmp_path)
    with pytest.raises(CheckpointError, match="version 1 is another one"):
        load(log, versions={"1": dataclasses.replace(TWO, classes=("yes", "no"))})


def test_rows_that_did_not_change_are_not_written_again(tmp_path):
    """A second checkpoint names the first one's file and a small one of its own."""
    log, _ = saved(tmp_path)
    monitor = Monitor(log, LONG, KnownReferences(VERSIONS))
    monitor.fold = Fold(
        LONG, monitor.known, metric=METRICS["log_loss"], state=monitor.checkpoints.load(monitor.known).state
    )
    monitor.read([prediction("d", 48.0)])
    monitor.checkpoints.save(monitor.fold.state, {}, {})
    assert sorted(path.name[:2] for path in (log / "fold").glob("*.arrow")) == ["1-", "3-"]


def test_files_that_are_gone_are_written_again(tmp_path):
    """Somebody has cleaned up below a monitor that runs."""
    monitor = Monitor(tmp_path, LONG, KnownReferences(VERSIONS))
    monitor.read([prediction("a", 1.0)])
    monitor.restart()
    for path in (tmp_path / "fold").glob("*.arrow"):
        path.unlink()
    monitor.restart()
    assert monitor.fold.counts()["predictions"] == 1


def test_many_small_files_become_one(tmp_path, monkeypatch):
    """And files that no checkpoint names go once they are old."""
    monkeypatch.setattr("raywf.monitor.checkpoint._OLD_S", -1.0)
    monitor = Monitor(tmp_path, LONG, KnownReferences(VERSIONS))
    for i in range(40):
        monitor.read([prediction(f"p{i}", 24.0 * i)])
        monitor.restart()
    assert len(list((tmp_path / "fold").glob("*.arrow"))) <= 18
    assert monitor.fold.counts()["predictions"] == 40


def test_rows_of_many_files_come_back(tmp_path, monkeypatch):
    """More rows than one file takes."""
    monkeypatch.setattr(rowfiles, "FILE_ROWS", 3)
    monitor = Monitor(tmp_path, LONG, KnownReferences(VERSIONS))
    monitor.read([prediction(f"p{i}", float(i), x=i / 100) for i in range(100)])
    before = told(monitor.fold)
    monitor.restart()
    assert told(monitor.fold) == before
    assert len(list((tmp_path / "fold").glob("*.arrow"))) == 5  # one a day


def test_a_version_that_tells_more_by_now_is_the_same():
    """At any depth; one that tells otherwise is another."""
    assert _holds({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1}})
    assert _holds({"a": {"b": 1}}, {"a": None})
    assert not _holds({"a": {"b": 2}}, {"a": {"b": 1}})
    assert not _holds({}, {"a": 1})
