"""The file that holds a partition, NumPy's npz: cut from a data set here, made from pictures here, or somebody's own.

What is made here carries a mark. A file without one is somebody's own: it is used if it can be, and never written to.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from federation.data.hub import SOURCES, DataError
from federation.files import replaced

import numpy as np

# Marks: the name of the first array in a file that is made here. The array says what it was made from.
CUT = "cut_from"
PICTURES = "made_from_pictures"
SHUFFLE_SEED = 42


class Examples(NamedTuple):
    """Images and their labels; how many there are is `len(examples.labels)`."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # int64 [n], 0 to 9


class OwnFileError(DataError):
    """A file that could not be made again here is of no use."""

    exit_code = 2


def write(path: Path, examples: Examples, cut_from: list[str]) -> None:
    """Write images and labels to `path`; `cut_from` names the files that they were cut from."""
    _write(path, {CUT: np.array(cut_from)}, examples)


def write_pictures(path: Path, examples: Examples, folder: Path, classes: Sequence[str]) -> None:
    """Write images and labels of the pictures in `folder` to `path`, mixed, with the names of the classes, by label."""
    _write(path, {PICTURES: np.array(str(folder)), "classes": np.array(classes)}, _mixed(examples))


def _write(path: Path, before: dict[str, np.ndarray], examples: Examples) -> None:
    with replaced(path) as file:
        np.savez(file, **before, images=examples.images, labels=examples.labels)  # type: ignore[arg-type]


def _mixed(examples: Examples) -> Examples:
    """Return the examples in another order, always the same: they may be sorted by label."""
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(examples.labels))  # the same in every NumPy
    return Examples(examples.images[order], examples.labels[order])


def mark_of(path: Path) -> str | None:
    """Return how `path` was made here, CUT or PICTURES; "" if it was not; None if there is nothing.

    Nothing is in an empty file, too, and in one of zeros, which is what a power cut leaves. Raises DataError if `path`
    cannot be read.
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
    if not start.strip(b"\0"):
        return None
    name = start[30:]  # in zip, 30 bytes come before the first name
    return next((mark for mark in (CUT, PICTURES) if name.startswith(f"{mark}.npy".encode())), "")


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the names of the classes in a file, by label; none if it has the data set's own, or if it is not there."""
    if not path.exists():
        return ()
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(arrays.get("classes", np.array(())).tolist())


def read(path: Path, dataset: str, available: list[str]) -> Examples | None:
    """Return what is in `path`; None if it has to be cut: it is missing, or was cut here but is damaged or out of date.

    Out of date is what was cut from other files than those that are `available`, if there are any. Somebody's own rows
    come mixed. Raises DataError if `path` cannot be read, and OwnFileError if it was not cut here and does not hold
    images and labels for a model of `dataset`.
    """
    mark = mark_of(path)
    if mark is None and not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no npz archive, or only a part of one")
        with np.load(path, allow_pickle=False) as arrays:
            examples = _checked(arrays, dataset)
            cut_from = arrays[CUT].tolist() if mark == CUT else available
    except Exception as error:  # whatever NumPy and zipfile stumble over; the archive has checksums
        if mark == PICTURES:
            raise OwnFileError(
                f"{path}, which was made from pictures, cannot be used: {error}\n"
                "Make it again with --from_folder, or remove it to have that partition cut from the data set."
            ) from error
        if mark == "":
            raise OwnFileError(
                f"{path}, which was not made here and stays as it is, cannot be used: {error}"
            ) from error
        print(f"{path} is damaged ({error}): making it again", file=sys.stderr)
        if mark is None:
            print("If it was made from pictures, make it from them again, with --from_folder.", file=sys.stderr)
        return None
    if available and cut_from != available:
        print(f"{path} was cut from other files than those beside it: making it again", file=sys.stderr)
        return None
    return _mixed(examples) if mark == "" else examples


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
    classes = arrays.get("classes")
    if classes is not None and (classes.dtype.kind != "U" or classes.ndim != 1 or classes.size <= labels.max()):
        raise ValueError(f"its classes are {classes.tolist()}, and labels up to {labels.max()} need as many names")
    return Examples(images, labels.reshape(-1).astype(np.int64))


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError if there are too few labels for a partition, or if one is not from 0 to 9."""
    if len(labels) < 2:
        raise ValueError(f"it has {len(labels)} images, and needs 2: one to train on, one to validate on")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"its labels go from {labels.min()} to {labels.max()}, and have to be from 0 to 9")
