"""The peers' own virtual environments, made once and kept: their dependencies clash with raywf's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    # the packages of flaml[automl] by name: the extra asks for the xgboost wheel that brings NCCL
    "flaml": (
        "flaml==2.7.0",
        "lightgbm",
        "xgboost-cpu<3",
        "catboost",
        "pandas",
        "scikit-learn",
        "scipy",
        "pyarrow",
    ),
    "bentoml": ("bentoml>=1.4",),
    "evidently": ("evidently==0.7.23", "pandas<3", "pyarrow"),
    "nannyml": ("nannyml==0.13.1", "statsmodels", "pyarrow"),  # which it imports and does not ask for
    "autogluon": ("autogluon.tabular[lightgbm,catboost,xgboost]==1.6.3", "torch==2.13.0", "pyarrow"),
}


class NotInstalled(Exception):  # noqa: N818 it says what is wrong
    """An environment could not be made."""


def peer_python(folder: Path, peer: str) -> Path:
    """Return the interpreter of ``venv-PEER`` below `folder`; make the environment if it is not complete.

    Raises:
        NotInstalled: if it cannot be made, with the command that failed.
    """
    root = folder / f"venv-{peer}"
    python, marker = root / "bin" / "python", root / "complete"
    wanted = "\n".join(REQUIREMENTS[peer]) + "\n"
    if marker.is_file() and marker.read_text() == wanted:
        return python
    print(f"installing {', '.join(REQUIREMENTS[peer])} into {root}", file=sys.stderr, flush=True)
    _call(sys.executable, "-m", "venv", str(root))
    _call(str(python), "-m", "pip", "install", "--quiet", "--progress-bar", "off", *REQUIREMENTS[peer])
    marker.write_text(wanted)
    return python


def _call(*command: str) -> None:
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise NotInstalled(f"this failed, see above: {' '.join(command)}")
