"""The file of a partition, in NumPy's npz format: made here, or your own. It is used or refused, never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, NamedTuple, Sequence

from federation.data.hub import SOURCES, explained
from federation.files import replaced

import numpy as np


class Examples(NamedTuple):
    """Images and their labels; how many there are is `len(examples.labels)`."""

    images: np.ndarray  # uint8 [n, height, width, channels]; or pictures, as objects [n]: see pictures.py
    labels: np.ndarray  # int64 [n], from 0 on


def write(path: Path, examples: Examples, classes: Sequence[str] = ()) -> None:
    """Write a partition, and the names of its classes, by label, unless they are the data set's own."""
    names = {"classes": np.array(classes)} if classes else {}
    with replaced(path) as file:
        np.savez(file, **names, images=examples.images, labels=examples.labels)  # type: ignore[arg-type]


def read(path: Path, dataset: str) -> Examples:
    """Read a partition for a model of `dataset`, shuffled if sorted by label; raises DataError if it is unusable."""
    advice = "Remove it to recreate it from the data set, or make it again with --from_folder."
    with explained(f"Cannot use {path}", advice, exit_code=2), np.load(path, allow_pickle=False) as arrays:
        images, labels = _checked(arrays, dataset)
    if (np.diff(labels) < 0).any():
        return Examples(images, labels)
    # Sorted by label, as your own images may be: the last tenth, the validation set, would be of an untrained class.
    order = np.random.RandomState(42).permutation(len(labels))  # the same in every NumPy
    return Examples(images[order], labels[order])


def read_classes(path: Path) -> list[str]:
    """The names of the classes in a file, by label; none if it has the data set's own, or if there is no file."""
    if not path.exists():  # your own script may load its images from elsewhere
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["classes"].tolist() if "classes" in arrays else []


def _checked(arrays: Mapping[str, np.ndarray], dataset: str) -> Examples:
    """The images and labels in `arrays` in their usual form; raises ValueError if a model cannot train on them."""
    if not {"images", "labels"} <= {*arrays}:
        raise ValueError(f"it needs the arrays images and labels, but has {', '.join(arrays) or 'nothing'}")
    images, labels = arrays["images"], arrays["labels"]
    shape = SOURCES[dataset].image_shape
    if shape[2] == 1 and images.ndim == 3:
        images = images[..., np.newaxis]
    if images.shape[1:] != shape or images.dtype != np.uint8:
        found, wanted = list(images.shape), ", ".join(map(str, shape))
        raise ValueError(f"its images are {images.dtype} of shape {found}, but {dataset} needs uint8 of [n, {wanted}]")
    if labels.dtype.kind not in "iu" or labels.size != len(images):
        found = list(labels.shape)
        raise ValueError(f"its labels are {labels.dtype} of shape {found}, but must be {len(images)} integers")
    check_labels(labels)
    return Examples(images, labels.reshape(-1).astype(np.int64))


def check_labels(labels: np.ndarray) -> None:
    """Raise ValueError if there are too few labels for a partition, or if one is not from 0 to 9."""
    if len(labels) < 2:
        raise ValueError(f"it has {len(labels)} images, but needs 2: one to train on, one to validate on")
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"its labels go from {labels.min()} to {labels.max()}, but must be from 0 to 9")
