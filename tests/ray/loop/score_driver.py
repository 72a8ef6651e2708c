"""A process that scores into a folder on a cluster of its own and dies after some parts, as by `kill -9`.

``python tests/ray/loop/score_driver.py FOLDER PARTS``
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from raywf.core.cluster_settings import ClusterSettings
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.score import Asked, Progress, score
from raywf.testing import FolderSource


def workflow(folder: Path) -> Workflow:
    return Workflow(
        name="flights",
        task="binary",
        spine=SpineSettings(path="none.csv", label="late", keys=("id",)),
        stores=StoreSettings(root=str(folder / "root")),
        cluster=ClusterSettings(cpus=2),
    )


def main() -> None:
    folder, parts = Path(sys.argv[1]), int(sys.argv[2])

    def tell(progress: Progress) -> None:
        if progress.parts == parts:
            os.kill(os.getpid(), signal.SIGKILL)

    asked = Asked(input=str(folder / "input"), output=str(folder / "out"))
    score(workflow(folder), asked, source=FolderSource(str(folder / "registry")), tell=tell)


if __name__ == "__main__":
    main()
