"""The file that holds a partition, NumPy's npz: cut from a data set here, or somebody's own images.

What is made here carries a mark. A file without it is somebody's own: it is used if it can be, and never written to.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Mapping, NamedTuple

from federation.files import replaced
from federation.hub import SOURCES, DataError

import numpy as np

MARK = "cut_from"  # the name of the first array in a file that is made here: what it was made from
SHUFFLE_SEED = 42


class Examples(NamedTuple):
    """Images and their labels; how many there are is `len(examples.labels)`."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # int64 [n], 0 to 9


class OwnFileError(DataError):
    """A file that was not made here is of no use."""

    exit_code = 2


def write(path: Path, examples: Examples, cut_from: list[str]) -> None:
    """Write images and labels to `path`; `cut_from` names the files that they were cut from."""
    with replaced(path) as file:
        np.savez(file, cut_from=np.array(cut_from), images=examples.images, labels=examples.labels)


def read(path: Path, dataset: str, available: list[str]) -> Examples | None:
    """Return what is in `path`; None if it has to be made: it is missing, or made here but damaged or out of date.

    Out of date is what was cut from other files than those that are `available`, if there are any. Somebody's own rows
    come shuffled, always in the same way: they may be sorted by label. Raises DataError if `path` cannot be read, and
    OwnFileError if it was not made here and does not hold images and labels for a model of `dataset`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(100)
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(f"{path} is a link to a file that is not there") from None
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    is_empty = not start.strip(b"\0")  # zeros are what a power cut leaves
    is_own = not is_empty and not start[30:].startswith(MARK.encode())  # in zip, 30 bytes come before the first name
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no npz archive, or only a part of one")
        with np.load(path, allow_pickle=False) as arrays:
            examples = _checked(arrays, dataset)
            cut_from = available if is_own else arrays[MARK].tolist()
    except Exception as error:  # whatever NumPy and zipfile stumble over; the archive has checksums
        if is_own:
            raise OwnFileError(
                f"{path}, which was not made here and stays as it is, cannot be used: {error}"
            ) from error
        print(f"{path} is damaged ({error}): making it again", file=sys.stderr)
        return None
    if available and cut_from != available:
        print(f"{path} was cut from other files than those beside it: making it again", file=sys.stderr)
        return None
    if is_own:
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(examples.labels))  # the same in every NumPy
        examples = Examples(examples.images[order], examples.labels[order])
    return examples


def _checked(arrays: Mapping[str, np.ndarray], dataset: str) -> Examples:
    """Return the images and labels in `arrays` in their usual form; raises ValueError if they are of no use."""
    for name in ("images", "labels"):
        if name not in arrays:
            raise ValueError(f"it has no array called {name}, only {', '.join(arrays) or 'nothing'}")
    images, labels = arrays["images"], arrays["labels"]
    shape = SOURCES[dataset].image_shape
    if shape[2] == 1 and images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1:] != shape or images.dtype != np.uint8:
        found = f"{images.dtype} of shape {list(images.shape)}"
        raise ValueError(f"its images are {found}, and {dataset} needs uint8 of shape {['n', *shape]}".replace("'", ""))
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        found = f"{labels.dtype} of shape {list(labels.shape)}"
        raise ValueError(f"its labels are {found}, and {len(images)} images need that many integers")
    check_labels(labels)
    return Examples(images, labels.reshape(-1).astype(np.int64))


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError if there are too few labels for a partition, or if one is not from 0 to 9."""
    if len(labels) < 2:
        raise ValueError(f"it has {len(labels)} images, and needs 2: one to train on, one to validate on")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"its labels go from {labels.min()} to {labels.max()}, and have to be from 0 to 9")
