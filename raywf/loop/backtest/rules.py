"""When a backtest retrains: by raywf's policy, or as others do, without a look and without a gate."""

from __future__ import annotations

import functools
import importlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from raywf.core.clock import format_time
from raywf.core.codec import DecodeError, decode, encode
from raywf.core.duration import parse_duration
from raywf.core.errors import SettingsError
from raywf.core.ids import stable_id
from raywf.core.records import Decision, Effort, Evidence
from raywf.core.retrain_settings import RetrainSettings
from raywf.core.settings import Workflow
from raywf.policy.history import History
from raywf.policy.policy import decide

_RIVER = "the rule 'adwin' needs river: pip install 'raywf[backtest]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is known at a chance to decide.

    `losses` are the champion's bounded losses on rows whose label came since the chance before, in the order
    in which it did.
    """

    now: datetime
    evidence: tuple[Evidence, ...]
    history: History
    losses: NDArray[np.float64]


class Rule(Protocol):
    """Decides at each chance; has a state of its own at most."""

    @property
    def name(self) -> str:
        """As the user wrote it."""
        ...

    @property
    def gated(self) -> bool:
        """Whether a model must be shown to be better before it is champion."""
        ...

    def decide(self, moment: Moment) -> Decision:
        """Return what to do."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """raywf's policy with the workflow's settings: looks, retrainings by effort, the gate."""

    workflow: Workflow
    name: str = "raywf"
    gated: bool = True

    @property
    def settings(self) -> RetrainSettings:
        """When it retrains."""
        return self.workflow.retrain

    def decide(self, moment: Moment) -> Decision:
        """Return what the controller would do."""
        return decide(
            moment.evidence,
            moment.history,
            self.settings,
            workflow=self.workflow.name,
            now=moment.now,
            min_labelled=self.workflow.monitor.min_labelled,
        )


@dataclass(frozen=True, slots=True)
class Never:
    """Keeps the first model."""

    name: str = "never"
    gated: bool = False

    def decide(self, moment: Moment) -> Decision:
        """Return a skip."""
        return _decision(self.name, moment, "skip", "refit")


@dataclass(frozen=True, slots=True)
class Periodic:
    """Retrains once in a while, come what may: ``every 30d``, ``every 30d full``."""

    name: str
    every: timedelta
    effort: Effort
    gated: bool = False

    def decide(self, moment: Moment) -> Decision:
        """Return a retraining if one is due."""
        last = moment.history.last_change
        due = last is None or moment.now >= last + self.every
        return _decision(self.name, moment, "retrain" if due else "skip", self.effort)


class Adwin:
    """Retrains when ADWIN finds that the champion's loss changed (Bifet and Gavalda, SDM 2007; by river)."""

    gated = False

    def __init__(self, name: str, delta: float, *, effort: Effort = "refit") -> None:
        try:
            adwin = importlib.import_module("river.drift").ADWIN
        except ImportError as err:
            raise SettingsError(_RIVER) from err
        self.name, self._effort = name, effort
        self._make: Callable[[], Any] = functools.partial(adwin, delta=delta)
        self._detector = self._make()

    def decide(self, moment: Moment) -> Decision:
        """Return a retraining if the losses since the last chance show a rise."""
        found = False
        for loss in moment.losses:
            before = self._detector.estimation
            self._detector.update(float(loss))
            found = found or (self._detector.drift_detected and self._detector.estimation > before)
        if found:
            self._detector = self._make()
        return _decision(self.name, moment, "retrain" if found else "skip", self._effort)


def make_rule(text: str, workflow: Workflow) -> Rule:
    """Return the rule of a text: ``raywf``, ``never``, ``every 30d [full]``, ``adwin [delta]``.

    ``raywf`` may be followed by settings of `retrain`: ``raywf regret=0.05 effort=refit``; those with blanks
    stand between quotation marks: ``raywf when='loss or age' max_age=90d``.

    Raises:
        SettingsError: if it is none of these, or needs a package that is missing.
    """
    try:
        word, *rest = shlex.split(text)
        if word == "raywf":
            return Policy(_with_settings(workflow, rest), name=text)
        if word == "never" and not rest:
            return Never()
        if word == "every" and len(rest) in {1, 2} and (len(rest) == 1 or rest[1] in {"refit", "full"}):
            effort: Effort = "full" if rest[1:] == ["full"] else "refit"
            return Periodic(text, parse_duration(rest[0]), effort)
        if word == "adwin" and len(rest) <= 1:
            return Adwin(text, float(rest[0]) if rest else 0.002)
    except (ValueError, DecodeError) as err:
        raise SettingsError(f"policy {text!r}: {err}") from err
    raise SettingsError(
        f"policy {text!r} is none of: raywf [KEY=VALUE ...], never, every DURATION [full], adwin [DELTA]"
    )


def _with_settings(workflow: Workflow, pairs: list[str]) -> Workflow:
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not KEY=VALUE")
        given[key] = yaml.safe_load(value)
    return replace(workflow, retrain=decode(RetrainSettings, encode(workflow.retrain) | given))


def _decision(name: str, moment: Moment, kind: str, effort: Effort) -> Decision:
    window = format_time(moment.now)
    return Decision(
        id=stable_id(name, kind, window),
        workflow=name,
        kind=kind,  # type: ignore[arg-type]  # of two of its words
        cause=name,
        window=window,
        reasons=(),
        time=moment.now,
        effort=effort,
    )
