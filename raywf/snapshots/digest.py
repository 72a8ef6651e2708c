"""Hashes of rows, and of a table's content whatever its blocks and their order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.snapshots.convert import is_text, plain

Hash = NDArray[np.uint64]
_SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_MISSING = np.uint64(0x5851F42D4C957F2D)


def row_hashes(table: pa.Table, *, seed: int = _SEEDS[0]) -> Hash:
    """Return one hash a row, a function of the values in column order and the seed; shape ``(n_rows,)``."""
    hashes = np.full(table.num_rows, seed, dtype=np.uint64)
    for values in table.columns:
        hashes = _mix(hashes ^ _column_hashes(plain(values)))
    return hashes


def content_sums(table: pa.Table) -> tuple[int, ...]:
    """Return two sums of row hashes modulo 2**64; those of a table's parts add up to the table's."""
    return tuple(int(row_hashes(table, seed=seed).sum(dtype=np.uint64)) for seed in _SEEDS)


def add_sums(parts: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Sum the parts' content sums."""
    return tuple(sum(values) % 2**64 for values in zip(*parts, strict=True))


def format_digest(sums: tuple[int, ...], *, rows: int) -> str:
    """Write content sums as the digest that a snapshot carries."""
    return f"rows:{rows}:" + "".join(f"{value:016x}" for value in sums)


def _column_hashes(values: pa.ChunkedArray) -> Hash:
    if len(values) == 0:
        return np.array([], dtype=np.uint64)
    if is_text(values.type):
        coded = pa.chunked_array([values.combine_chunks()], values.type).dictionary_encode().chunk(0)
        names = np.asarray(coded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
        hashed = np.append(pd.util.hash_array(names, categorize=False), _MISSING)
        codes = pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False)
        return np.asarray(hashed[codes], dtype=np.uint64)
    if pa.types.is_timestamp(values.type):
        values = pc.cast(values, pa.int64())
    missing = pc.is_null(values).to_numpy()
    numbers = pc.fill_null(values, 0).to_numpy()
    numbers = np.ascontiguousarray(numbers + 0 if numbers.dtype.kind == "f" else numbers.astype(np.int64))
    return np.where(missing, _MISSING, _mix(numbers.view(np.uint64)))


def _mix(values: Hash) -> Hash:
    """Spread the bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)
