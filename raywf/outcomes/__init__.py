"""Predictions and their late outcomes as a durable, append-only log; `join` pairs them by id."""

from __future__ import annotations

from raywf.outcomes.join import join
from raywf.outcomes.lookup import LogLookup
from raywf.outcomes.reader import LogReader
from raywf.outcomes.writer import LogWriter

__all__ = ["LogLookup", "LogReader", "LogWriter", "join"]
