"""The global model on disk: written after every round, so that a run can go on after a crash."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Sequence

from federation.files import replaced

import numpy as np

NAME = "model.npz"

# What there is to know about a checkpoint, here that of a run without one: the round after which it was written, how
# many rounds were committed until then, that round's results and failures, and the identity that clients must fit.
NOTHING: dict[str, Any] = {"round": 0, "committed": 0, "clients": 0, "failures": 0, "federation": {}}


def save(folder: Path, arrays: Sequence[np.ndarray], about: dict[str, Any]) -> None:
    """Write the model's arrays, in order, to model.npz, and what there is to know about it (see NOTHING).

    Both are in one file, so that they cannot contradict each other: `about` is the comment of the zip archive, which
    NumPy's reading ignores. Raises OSError if the file cannot be written; the previous one then stays.
    """
    with replaced(folder / NAME) as file:
        np.savez(file, *arrays)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = json.dumps(about).encode()


def load(folder: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the arrays and `about`; no arrays and NOTHING if the run in `folder` ended before its first checkpoint.

    Raises OSError if there is no such folder, ValueError if the checkpoint is damaged.
    """
    path = folder / NAME
    if folder.is_dir() and not path.exists():
        return [], NOTHING
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in file.files]
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.comment)
        return arrays, {name: about[name] for name in NOTHING}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no checkpoint of a run, or damaged") from error
