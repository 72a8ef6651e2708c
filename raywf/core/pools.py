"""Which nodes work goes to, where nodes carry a label that says what they are for."""

from __future__ import annotations

from typing import Literal

Pool = Literal["system", "serve", "train"]
LABEL = "pool"  # as the files of `raywf cluster render` have it


def selector(pool: Pool, *, labelled: bool) -> dict[str, str]:
    """Return the labels that a node must have for a pool's work; none where nodes are not labelled.

    >>> selector("train", labelled=True), selector("train", labelled=False)
    ({'pool': 'train'}, {})
    """
    return {LABEL: pool} if labelled else {}
