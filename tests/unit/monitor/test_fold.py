"""The fold: a function of the set of records."""

from __future__ import annotations

import dataclasses
import itertools
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.metrics import METRICS, bounded_loss
from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.service import Service
from raywf.core.settings import MonitorSettings
from raywf.monitor import fold as fold_module
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference

START = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PROFILE = (
    ColumnProfile(name="x", kind="number", edges=(0.0, 1.0), counts=(10, 10, 10)),
    ColumnProfile(name="s", kind="category", values=("a", "b"), counts=(20, 10, 0)),
)
REFERENCES = KnownReferences(
    {v: Reference(version=v, task="binary", classes=("no", "yes"), profile=PROFILE) for v in ("1", "2")}
)
SETTINGS = MonitorSettings(window=timedelta(days=1), min_labelled=4)


def fold(*batches, references=REFERENCES, settings=SETTINGS):
    """Fold the batches one after the other."""
    state = Fold(settings, references, metric=METRICS["roc_auc"])
    for batch in batches:
        state.update(batch)
    return state


def prediction(identity="p", hour=0.0, *, version="1", score=0.3, **features):
    """An answered row."""
    return Prediction(
        id=identity, time=START + hour * HOUR, version=version, features=features, scores=(score,)
    )


def outcome(identity="p", hour=1.0, label="yes", value=None):
    """A label."""
    return Outcome(id=identity, time=START + hour * HOUR, label=label, value=value)


def service(identity="s", hour=0.0, *, version="1", answered=1, failed=0, cpu_s=0.0, times=None):
    """What a replica did."""
    return Service(
        id=identity,
        time=START + hour * HOUR,
        length_s=86_400.0,
        version=version,
        answered=answered,
        refused=0,
        failed=failed,
        cpu_s=cpu_s,
        times={-80: answered} if times is None else times,
    )


def services(ids, hours):
    """Records of a few replicas, in any state."""
    return st.builds(
        service,
        ids,
        hours,
        version=st.sampled_from("123"),
        answered=st.integers(0, 3),
        failed=st.integers(0, 2),
        cpu_s=st.sampled_from([0.1, 0.2]),
        times=st.dictionaries(st.integers(-90, -88), st.integers(0, 3), max_size=2),
    )


def state_of(folded):
    """All that can be asked of a fold."""
    return [folded.evidence(v) for v in ("1", "2", "3")], folded.watermark, folded.counts()


_ids = st.sampled_from("abcdef")
_hours = st.integers(0, 72).map(float)
_predictions = st.builds(
    prediction,
    _ids,
    _hours,
    version=st.sampled_from("123"),
    score=st.sampled_from([0.1, 0.5, 0.9]),
    x=st.none() | st.floats(-1, 2),
    s=st.sampled_from(["a", "c", None]),
)
_outcomes = st.builds(
    outcome, _ids, _hours, st.sampled_from(["no", "yes", "maybe", True]), st.none() | st.floats(0, 9)
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_predictions | _outcomes | services(_ids, _hours), max_size=25),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_pieces_in_any_order_with_repeats_give_the_same_state(records, random, cuts):
    """Shuffled, cut anywhere, some sent twice: nothing differs, to the last bit."""
    mixed = random.sample(records, len(records)) + random.sample(records, len(records) // 2)
    ends = [0, *sorted(min(c, len(mixed)) for c in cuts), len(mixed)]
    pieces = [mixed[a:b] for a, b in itertools.pairwise(ends)]
    assert state_of(fold(*pieces)) == state_of(fold(records))


def test_how_it_was_served():
    """Of each replica the furthest counts, of all together the sum; without rows there is no window."""
    records = [
        prediction("a", 1),
        service("r", answered=99, cpu_s=1.0),
        service("r", answered=50, cpu_s=0.5),
        service("q", answered=1, failed=2, cpu_s=0.25, times={-8: 1}),
        service("q", version="2", failed=1),
        service("q", 30),
        dataclasses.replace(service("p", answered=5), length_s=3600.0),  # of before the window was a day
    ]
    folded = fold(records)
    (evidence,) = folded.evidence("1")
    assert (evidence.answered, evidence.refused, evidence.failed, evidence.cpu_s) == (100, 0, 2, 1.25)
    assert (evidence.p50_s, evidence.p99_s) == (2**-10, 2**-10)
    assert folded.evidence("2") == ()
    assert folded.watermark == START + HOUR
    (bare,) = fold([prediction("a", 1)]).evidence("1")
    assert (bare.answered, bare.p99_s, bare.cpu_s) == (None, None, None)


def test_a_closed_window_keeps_how_it_was_served():
    """And what is known of it beside is let go of."""
    short = dataclasses.replace(SETTINGS, horizon=timedelta(days=2))
    records = [prediction("a", 1), service("r", answered=7)], [prediction("b", 2000)]
    folded = fold(*records, settings=short)
    assert [e.answered for e in folded.evidence("1")] == [7, None]
    assert folded.state.services.known == {}


def test_windows_lie_on_multiples_of_their_length():
    """One for each version and day."""
    folded = fold(
        [prediction("a", 1), prediction("b", 23), prediction("c", 24), prediction("d", 1, version="2")]
    )
    assert [(e.start, e.rows) for e in folded.evidence("1")] == [(START, 2), (START + 24 * HOUR, 1)]
    assert [e.rows for e in folded.evidence("2")] == [1]


def test_a_label_may_come_first():
    """And counts when its prediction comes."""
    folded = fold([outcome("a")], [prediction("a")])
    assert folded.evidence("1")[0].labelled == 1


def test_the_first_prediction_of_an_id_counts():
    """A repeat at a later time changes nothing."""
    folded = fold([prediction("a", 2, score=0.9)], [prediction("a", 1, score=0.1), outcome("a")])
    (evidence,) = folded.evidence("1")
    assert (evidence.rows, evidence.loss_sum) == (1, pytest.approx(0.81))


def test_the_latest_label_of_an_id_counts():
    """A correction replaces the first label."""
    folded = fold([prediction("a", score=0.9), outcome("a", 5, "yes")], [outcome("a", 3, "no")])
    assert folded.evidence("1")[0].loss_sum == pytest.approx(0.01)


def test_sums_and_metric_are_those_of_the_rows():
    """Against the metric and loss computed at once."""
    rng = np.random.default_rng(0)
    scores, labels = rng.random(300), rng.integers(0, 2, 300)
    records = [prediction(f"{i:03}", 1, score=float(s)) for i, s in enumerate(scores)]
    records += [outcome(f"{i:03}", 2, ("no", "yes")[y], float(i)) for i, y in enumerate(labels)]
    (evidence,) = fold(records).evidence("1")
    losses = bounded_loss(labels.astype(float), scores[:, None], scale=None)
    auc = METRICS["roc_auc"].score(labels.astype(float), scores[:, None])
    assert (evidence.loss_sum, evidence.loss_squares) == pytest.approx((losses.sum(), (losses**2).sum()))
    assert evidence.metric == pytest.approx(auc)
    assert evidence.metric_low < auc < evidence.metric_high
    assert (evidence.value_mean, evidence.value_rows) == (pytest.approx(149.5), 300)
    assert evidence.value_squares == pytest.approx(sum(i * i for i in range(300)))


def test_values_without_bounds_have_sums():
    """That a checkpoint's JSON can hold."""
    (evidence,) = fold([prediction("a"), outcome("a", value=1e300)]).evidence("1")
    assert (evidence.value_mean, evidence.value_rows) == (1e300, 1)
    assert np.isfinite(evidence.value_squares)


def test_too_few_labels_give_no_metric():
    """But the sums are there."""
    (evidence,) = fold([prediction("a"), outcome("a")]).evidence("1")
    assert (evidence.metric, evidence.labelled, evidence.pending) == (None, 1, 0)


def test_a_version_not_known_yet_waits():
    """Its rows count once the reference can be looked up."""
    by_version: dict[str, Reference] = {}
    folded = fold([prediction("a"), outcome("a")], references=KnownReferences(by_version))
    assert folded.counts()["predictions_of_unknown_version"] == 1
    by_version["1"] = REFERENCES.by_version["1"]
    folded.update([])
    assert folded.evidence("1")[0].labelled == 1


def test_a_label_of_no_class_is_counted_apart():
    """It does not become a class."""
    folded = fold([prediction("a"), outcome("a", label="maybe")])
    assert folded.evidence("1")[0].labelled == 0
    assert folded.counts()["labels_of_unknown_class"] == 1


def test_drift_by_column():
    """Shares like in training give nearly none; all in one bin gives much; so do unknown ones."""
    same = [prediction(f"a{i}", x=float(i % 3) - 0.5, s="aab"[i % 3]) for i in range(300)]
    moved = [prediction(f"b{i}", 24, x=5.0, s="new") for i in range(300)]
    first, second = (evidence.drift for evidence in fold(same, moved).evidence("1"))
    assert [round(d.psi, 2) for d in first] == [0.0, 0.0]
    assert second[0].psi > 1
    assert (second[1].column, second[1].missing, second[1].missing_before) == ("s", 0.0, 0.0)
    assert second[1].psi > 1


def test_rows_unlike_training():
    """Each counts once, whatever of it is new; where profiles tell no range there is no count."""
    ranged = dataclasses.replace(PROFILE[0], edges=(-1.0, 0.0, 1.0, 2.0), counts=(0, 10, 10, 10, 0))
    known = dataclasses.replace(REFERENCES.by_version["1"], profile=(ranged, PROFILE[1]))
    rows = [prediction("a", x=0.5, s="a"), prediction("b", x=9.0, s="new"), prediction("c", x=None, s="b")]
    (found,) = fold(rows, references=KnownReferences({"1": known})).evidence("1")
    assert (found.rows, found.unlike) == (3, 2)
    assert fold(rows).evidence("1")[0].unlike is None


def test_few_labels_may_be_enough():
    """Where feedback comes for a part only, as the workflow says."""
    rows = [prediction(f"p{i}") for i in range(10)]
    labels = [outcome(f"p{i}") for i in range(5)]
    half = dataclasses.replace(SETTINGS, labelled_share=0.5)
    assert not fold(rows, labels).evidence("1")[0].is_labelled
    assert fold(rows, labels, settings=half).evidence("1")[0].is_labelled
    assert not fold(rows, labels[:4], settings=half).evidence("1")[0].is_labelled


def test_old_windows_keep_their_sums_only():
    """Past the horizon the rows are forgotten and the evidence stays."""
    folded = fold([prediction("a"), outcome("a")])
    before = folded.evidence("1")
    folded.update([prediction("z", 24 * (SETTINGS.horizon.days + 3))])
    assert folded.evidence("1")[:1] == before
    folded.update([outcome("a", 2, "no")])
    assert folded.evidence("1")[:1] == before
    assert folded.counts()["predictions"] == 2


def test_drift_of_very_old_windows_is_let_go(monkeypatch):
    """That of the newest closed ones stays."""
    monkeypatch.setattr(fold_module, "_DRIFT_KEPT", 2)
    hours = [24.0 * day for day in (0, 1, 2, SETTINGS.horizon.days + 6)]
    folded = fold(*([prediction(f"p{i}", hour, x=0.5)] for i, hour in enumerate(hours)))
    assert [bool(e.drift) for e in folded.evidence("1")] == [False, True, True, True]


def test_a_window_waits_for_labels_that_come_after_the_horizon():
    """As long as the version wants its rows to be old."""
    days = SETTINGS.horizon.days
    year = KnownReferences(
        {v: dataclasses.replace(REFERENCES.by_version[v], maturity_s=2 * days * 86400.0) for v in ("1", "2")}
    )
    batches = [prediction("a")], [prediction("z", 24 * 1.5 * days)], [outcome("a", 24 * 1.5 * days)]
    assert fold(*batches).evidence("1")[0].labelled == 0  # counted only, as ever
    folded = fold(*batches, references=year)
    assert folded.evidence("1")[0].labelled == 1
    folded.update([prediction("end", 24 * (2 * days + 9))])
    folded.update([outcome("a", 24 * (2 * days + 9), "no")])
    assert folded.evidence("1")[0].labelled == 1


def test_an_instant_to_come_closes_nothing():
    """A mistaken time does not end the evidence; where the log is the clock it is the time."""
    now = (datetime.now(UTC) - START) / HOUR
    batches = [prediction("a", now - 30), prediction("far", 24 * 365 * 130)], [outcome("a", now)]
    assert [e.labelled for e in fold(*batches).evidence("1")] == [1, 0]
    by_log = dataclasses.replace(SETTINGS, clock="log")
    assert [e.labelled for e in fold(*batches, settings=by_log).evidence("1")] == [0, 0]


def test_reading_an_old_log_again_gives_the_same_state():
    """Segments far apart in time, one read whole before the other, close no window until all is read."""
    late = 24 * (SETTINGS.horizon.days + 30)
    first = [prediction("a"), outcome("a"), prediction("c", late), outcome("c", late + 1)]
    second = [prediction("b", 1), outcome("b", 2)]
    again = Fold(SETTINGS, REFERENCES, metric=METRICS["roc_auc"])
    again.update(first, settle=False)
    again.update(second, settle=False)
    again.update(())

    assert again.counts() == fold(first + second).counts()
    assert again.evidence("1") == fold(first + second).evidence("1")


def test_thirty_thousand_predictions_fold_in_seconds():
    """Twenty features, in batches of a thousand, with labels."""
    profile = tuple(
        ColumnProfile(name=f"x{i}", kind="number", edges=(0.2, 0.5, 0.8), counts=(1, 1, 1, 1))
        for i in range(20)
    )
    reference = Reference(version="1", task="binary", classes=("no", "yes"), profile=profile)
    features = {f"x{i}": 0.1 * i for i in range(20)}
    records = []
    for i in range(30_000):
        records += [prediction(f"{i}", i / 100, score=0.4, **features), outcome(f"{i}", i / 100 + 3)]
    state = Fold(SETTINGS, KnownReferences({"1": reference}), metric=METRICS["roc_auc"])
    began = time.perf_counter()
    for i in range(0, len(records), 2000):
        state.update(records[i : i + 2000])
    evidence = state.evidence("1")
    assert sum(e.labelled for e in evidence) == 30_000
    assert time.perf_counter() - began < 20


def test_answers_earn_what_the_settings_say():
    """By what was answered and what it was; an outcome's own value goes before, without a label is none."""
    worth = {"yes": {"yes": 5.0, "no": -1.0}}
    priced = dataclasses.replace(SETTINGS, values=worth)
    answered = [
        prediction(name, score=score) for name, score in zip("abcd", (0.9, 0.9, 0.1, 0.9), strict=True)
    ]
    known = [outcome("a", label="yes"), outcome("b", label="no"), outcome("c", label="yes", value=7.0)]
    (found,) = fold(answered, known, settings=priced).evidence("1")
    assert (found.value_rows, found.value_mean) == (3, pytest.approx((5 - 1 + 7) / 3))
    (plain,) = fold(answered, known).evidence("1")
    assert (plain.value_rows, plain.value_mean) == (1, 7.0)


def test_answers_of_another_width_earn_nothing():
    """A version of before may have had other classes, or none: its windows are reckoned all the same."""
    priced = dataclasses.replace(SETTINGS, values={"yes": {"yes": 5.0}})
    numbers = KnownReferences({"1": Reference(version="1", task="regression", loss_scale=1.0)})
    (found,) = fold([prediction("a"), outcome("a", label=1.0)], settings=priced, references=numbers).evidence(
        "1"
    )
    assert (found.labelled, found.value_mean) == (1, None)
    wide = dataclasses.replace(prediction("a"), scores=(0.1, 0.2, 0.3, 0.4))
    (found,) = fold([wide, outcome("a")], settings=priced).evidence("1")
    assert found.value_mean is None
