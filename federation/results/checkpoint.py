"""The global model on disk: written after every round, so that a run can be resumed after a crash."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from federation.files import replaced
from federation.wire.handshake import Identity

import numpy as np
from flwr.common import NDArrays

NAME = "model.npz"


@dataclass(frozen=True)
class Checkpoint:
    """The global model and its metadata; by default, those of a run without a model."""

    model: NDArrays = field(default_factory=list)
    round: int = 0  # after which it was written
    committed: int = 0  # rounds up to then that ended with a new model
    results: int = 0  # of that round
    failures: int = 0  # of that round
    member: Identity | None = None  # a client that newcomers must match; None if only plain Flower clients took part


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the model's arrays, in order, to model.npz, and the rest as the comment of that zip archive.

    NumPy ignores the comment when it reads; in one file, the two cannot contradict each other. Raises OSError if the
    file cannot be written; the previous one then stays.
    """
    metadata = asdict(replace(checkpoint, model=[]))
    del metadata["model"]
    with replaced(folder / NAME) as file:
        np.savez(file, *checkpoint.model)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = json.dumps(metadata).encode()


def load(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder of results, an empty one if the run ended before its first.

    Raises OSError if there is no such folder, ValueError if the checkpoint is damaged.
    """
    path = folder / NAME
    if folder.is_dir() and not path.exists():
        return Checkpoint()
    try:
        with np.load(path, allow_pickle=False) as file:
            model = [file[name] for name in file.files]
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.comment)
        member = metadata.pop("member")
        return Checkpoint(model, member=None if member is None else Identity(**member), **metadata)
    except OSError:
        raise
    except Exception as error:  # whatever NumPy, zipfile and json raise
        raise ValueError(f"its {NAME} is not a checkpoint of a run, or is damaged") from error
