"""Records and settings to plain JSON values and back, led by their type hints."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from raywf.core.category import category_text
from raywf.core.clock import format_time, parse_time
from raywf.core.duration import format_duration, parse_duration
from raywf.core.errors import did_you_mean

T = TypeVar("T")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


class DecodeError(ValueError):
    """A value does not fit its type; `path` says where, as a tuple of keys.

    It never leaves the process that decodes: the loader turns it into a `SettingsError`.
    """

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(message, path)
        self.message, self.path = message, path


def encode(value: Any) -> Any:
    """Return the value as JSON can hold it; durations and instants become text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    return value


def decode(kind: type[T], data: Any, path: tuple[str, ...] = ()) -> T:
    """Build `kind` from plain values.

    Raises:
        DecodeError: for an unknown key, a missing key or a value of the wrong type or range.

    """
    return typing.cast("T", _decode(kind, data, path))


@cache
def hints(kind: type) -> dict[str, Any]:
    """Return the resolved type hints of a dataclass' fields."""
    return typing.get_type_hints(kind)


def _decode(kind: Any, data: Any, path: tuple[str, ...]) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_record(typing.cast("type", kind), data, path)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(kind, data, path)
    if origin is Literal:
        if data not in get_args(kind):
            raise DecodeError(
                f"{data!r} is not allowed{did_you_mean(str(data), map(str, get_args(kind)))}", path
            )
        return data
    if origin is tuple:
        return _decode_tuple(kind, data, path)
    if origin is dict:
        if not isinstance(data, dict):
            raise DecodeError(f"expected a mapping, got {data!r}", path)
        value_kind = get_args(kind)[1]
        texts = {_key_text(k): v for k, v in data.items()}
        return {k: _decode(value_kind, v, (*path, k)) for k, v in texts.items()}
    return _decode_scalar(kind, data, path)


def _key_text(key: object) -> str:
    """Write a key as a class is written that YAML reads as a flag or a number."""
    return category_text(key) if isinstance(key, (str, bool, int, float)) else str(key)


def _decode_record(kind: type, data: Any, path: tuple[str, ...]) -> Any:
    if not isinstance(data, dict):
        raise DecodeError(f"expected a mapping of {kind.__name__} settings, got {data!r}", path)
    known = hints(kind)
    for key in data:
        if key not in known:
            raise DecodeError(f"unknown key {key!r}{did_you_mean(str(key), known)}", (*path, str(key)))
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    for name in sorted(required - data.keys()):
        raise DecodeError(f"missing key {name!r}", path)
    values = {key: _decode(known[key], value, (*path, key)) for key, value in data.items()}
    try:
        return kind(**values)
    except DecodeError as err:
        raise DecodeError(err.message, (*path, *err.path)) from err


def _decode_union(kind: Any, data: Any, path: tuple[str, ...]) -> Any:
    members = get_args(kind)
    if type(data) in members:
        return data
    error = None
    for member in members:
        if member is type(None):
            continue
        try:
            return _decode(member, data, path)
        except DecodeError as err:
            error = error or err
    assert error is not None
    raise error


def _decode_tuple(kind: Any, data: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(data, str) or not isinstance(data, (list, tuple)):
        raise DecodeError(f"expected a list, got {data!r}", path)
    args = get_args(kind)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], v, (*path, str(i))) for i, v in enumerate(data))
    if len(args) != len(data):
        raise DecodeError(f"expected {len(args)} values, got {len(data)}", path)
    return tuple(_decode(a, v, (*path, str(i))) for i, (a, v) in enumerate(zip(args, data, strict=True)))


def _decode_scalar(kind: Any, data: Any, path: tuple[str, ...]) -> Any:
    if kind is Any:
        return data
    try:
        if kind is timedelta:
            return data if isinstance(data, timedelta) else parse_duration(str(data))
        if kind is datetime:
            return data if isinstance(data, datetime) and data.tzinfo else parse_time(str(data))
    except ValueError as err:
        raise DecodeError(str(err), path) from err
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is float and isinstance(data, str) and _EXPONENT.fullmatch(data):
        return float(data)  # YAML takes 1e-4 for a text
    wrong_bool = isinstance(data, bool) and kind is not bool
    if kind is type(None) or wrong_bool or not isinstance(data, kind):
        raise DecodeError(f"expected {kind.__name__}, got {data!r}", path)
    return data


def require(ok: bool, key: str, rule: str, got: object) -> None:
    """Refuse a setting that breaks its rule.

    Raises:
        DecodeError: with the key, unless `ok`.
    """
    if not ok:
        raise DecodeError(f"{key} must be {rule}, got {got!r}", (key,))
