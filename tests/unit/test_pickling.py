"""Every record, setting and error goes from process to process; records go through JSON as well."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import pickle
import types
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core import (
    cluster_settings,
    drift,
    errors,
    explanation,
    records,
    retrain_settings,
    serving_settings,
)
from raywf.core import settings as core_settings
from raywf.core.codec import DecodeError, decode, encode, hints


def defined_in(module: types.ModuleType) -> list[type]:
    return [
        kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__
    ]


RECORDS = [
    kind
    for module in (records, drift, explanation)
    for kind in defined_in(module)
    if dataclasses.is_dataclass(kind)
]
SETTINGS = [
    kind
    for module in (core_settings, serving_settings, retrain_settings, cluster_settings)
    for kind in defined_in(module)
    if dataclasses.is_dataclass(kind)
]
ERRORS = [*defined_in(errors), DecodeError]

TEXT = st.text(max_size=8)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.none() | st.booleans() | st.integers() | NUMBER | TEXT
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(-(2**53), 2**53),
    float: NUMBER,
    bool: st.booleans(),
    datetime: st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    timedelta: st.integers(0, 10**9).map(lambda n: timedelta(milliseconds=n)),
    Any: JSON,
    type(None): st.none(),
}


@functools.cache
def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values that fit a type hint."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if dataclasses.is_dataclass(kind):
        return st.builds(kind, **{name: values(hint) for name, hint in hints(kind).items()})
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([values(a) for a in arguments])
    if origin is dict:
        return st.dictionaries(TEXT, values(arguments[1]), max_size=2)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    assert origin is tuple, f"no strategy for {kind}"
    return st.tuples(*map(values, arguments))


@pytest.mark.parametrize("kind", RECORDS, ids=lambda k: k.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_records_survive_pickling(kind: type, data: st.DataObject) -> None:
    """A record is the same in the process that it is sent to."""
    record = data.draw(values(kind))
    assert pickle.loads(pickle.dumps(record)) == record


@pytest.mark.parametrize("kind", RECORDS, ids=lambda k: k.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_records_survive_json(kind: type, data: st.DataObject) -> None:
    """Encoded, written as JSON, read and decoded, a record is what it was."""
    record = data.draw(values(kind))
    text = json.dumps(encode(record), allow_nan=False)
    assert decode(kind, json.loads(text)) == record


NEEDED = {
    core_settings.SpineSettings: {"path": "a.csv", "label": "y"},
    core_settings.ViewSettings: {
        "path": "v.csv",
        "keys": ("k",),
        "event_time": "t",
        "max_age": timedelta(hours=3),
    },
    serving_settings.OidcSettings: {"issuer": "https://login.example.com", "audience": "raywf"},
    core_settings.OwnModelSettings: {"code": "own.py:Mine", "trust": True},
    core_settings.OwnMetricSettings: {"code": "own.py:f", "greater_is_better": True, "trust": True},
    core_settings.Workflow: {
        "name": "w",
        "task": "binary",
        "spine": core_settings.SpineSettings(path="a.csv", label="y"),
    },
}


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda k: k.__name__)
def test_settings_survive_pickling(kind: type) -> None:
    """Settings are the same in the process that they are sent to."""
    made = kind(**NEEDED.get(kind, {}))
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("kind", [*RECORDS, *SETTINGS], ids=lambda k: k.__name__)
def test_records_and_settings_are_frozen_and_slotted(kind: type) -> None:
    """Nobody changes what another holds, and nobody adds to it."""
    parameters = kind.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert "__slots__" in vars(kind)


@pytest.mark.parametrize("kind", [k for k in ERRORS if issubclass(k, Exception)], ids=lambda k: k.__name__)
def test_errors_survive_pickling(kind: type[Exception]) -> None:
    """An error raised on a worker arrives with its type and its message."""
    back = pickle.loads(pickle.dumps(kind("what went wrong")))
    assert type(back) is kind
    assert back.args[0] == "what went wrong"


def test_every_error_but_the_decoder_s_has_the_root() -> None:
    """One except clause catches everything that raywf raises on purpose."""
    assert all(issubclass(kind, errors.RaywfError) for kind in defined_in(errors))
