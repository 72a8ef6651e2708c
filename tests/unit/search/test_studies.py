"""Configurations drawn from a user's spaces."""

from __future__ import annotations

import dataclasses

import pytest

from raywf.core.records import Trial
from raywf.core.space import parse_space
from raywf.search.studies import Studies

SPACE = parse_space({"x": {"low": -3.0, "high": 3.0}, "kind": ["a", "b"]})


def done(trial: Trial) -> Trial:
    """A trial whose loss is least at x = 1 and kind b."""
    loss = (trial.params["x"] - 1) ** 2 + (trial.params["kind"] == "a")
    return dataclasses.replace(trial, status="done", fold_losses=(loss,))


def studies(seed: int = 0) -> Studies:
    """A study of one family."""
    return Studies({"mine": SPACE}, base={"mine": {"fixed": 7}}, seed=seed)


def test_it_learns_where_to_draw() -> None:
    """The later draws lie nearer to the best than the first ones."""
    made, losses = studies(), []
    for _ in range(40):
        trial = made.draw("mine", known=())
        assert trial is not None
        assert trial.params["fixed"] == 7
        ended = done(trial)
        losses.append(ended.fold_losses[0])
        made.tell(ended)
    assert sum(losses[-10:]) < sum(losses[:10]) / 2


def test_draws_that_run_at_once_lie_apart() -> None:
    """Before any has ended."""
    made = studies()
    drawn = [made.draw("mine", known=()) for _ in range(8)]
    assert len({t.id for t in drawn if t}) == 8


def test_a_draw_that_is_not_tried_is_forgotten() -> None:
    """It is neither under way, which counts as bad, nor told again."""
    made = studies()
    trial = made.draw("mine", known=())
    assert trial is not None
    made.drop(trial)
    (kept,) = made._studies["mine"].trials
    assert kept.state.name == "FAIL"
    assert not made._open


def test_what_was_known_is_learnt_again() -> None:
    """A resumed search tells what had ended; what the space does not hold is left out."""
    first, again = studies(), studies(seed=1)
    for _ in range(30):
        trial = first.draw("mine", known=())
        assert trial is not None
        ended = done(trial)
        first.tell(ended)
        again.tell(ended)
    again.tell(
        Trial(id="far", family="mine", params={"x": 99.0, "kind": "a"}, status="done", fold_losses=(-9.0,))
    )
    again.tell(Trial(id="other", family="linear", params={}, status="done", fold_losses=(0.0,)))
    drawn = [again.draw("mine", known=()) for _ in range(5)]
    assert sum(abs(t.params["x"] - 1) < 1.5 for t in drawn if t) >= 3


def test_an_exhausted_space_has_no_more() -> None:
    """Rather none than the same again."""
    made = Studies({"mine": parse_space({"kind": ["a"]})}, base={}, seed=0)
    first = made.draw("mine", known=())
    assert first is not None
    assert made.draw("mine", known={first.id}) is None


def test_what_was_stopped_is_learnt_from() -> None:
    """Of trials that mostly end at a rung the later ones lie near the best, as if all had gone on."""
    made, losses = studies(), []
    for i in range(40):
        trial = made.draw("mine", known=())
        assert trial is not None
        ended = done(trial)
        losses.append(ended.fold_losses[0])
        if i % 8 == 0:
            made.tell(ended)
        else:
            at_rung = dataclasses.replace(trial, status="running")
            made.tell(at_rung, rungs={1: losses[-1]})
    assert sum(losses[-10:]) < sum(losses[:10]) / 2


def test_what_came_further_counts_as_better() -> None:
    """However good the loss of what was stopped: it is of other rows, or of a model half made."""
    made, far = studies(), []
    for _ in range(60):
        trial = made.draw("mine", known=())
        assert trial is not None
        far.append(trial.params["x"] < 0)
        if far[-1]:
            made.tell(dataclasses.replace(trial, status="done", fold_losses=(1.0,)))
        else:
            made.tell(dataclasses.replace(trial, status="stopped"), rungs={1: 0.0})
    assert sum(far[-20:]) >= 16


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_trials_without_a_loss_are_told(status: str) -> None:
    """And do no harm."""
    made = studies()
    trial = made.draw("mine", known=())
    assert trial is not None
    made.tell(dataclasses.replace(trial, status=status))
    assert made.draw("mine", known=()) is not None
