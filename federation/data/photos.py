"""Own pictures, in a folder for each class, made into a partition: for a device that trains on what it has itself.

The folder is laid out as torchvision's ImageFolder, Keras and `datasets` want it: photos/cat/1.jpg, photos/dog/1.jpg...
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Iterator

from federation.data import partition_file
from federation.data.hub import SOURCES, DataError
from federation.data.images import decode_picture
from federation.data.partition_file import Examples

import numpy as np

MOST_CLASSES = 10  # what the models tell apart
NOT_PICTURES = "Thumbs.db", "desktop.ini"  # what Windows puts into folders; other systems' files begin with a dot


class PicturesError(DataError):
    """The user's pictures are of no use."""

    exit_code = 2


def write_pictures(path: Path, dataset: str, folder: Path) -> None:
    """Make the pictures in `folder` into `path`, a partition or a test split for a model of `dataset`.

    A picture's label is the place of its class among the sorted names. What cannot be read is named and left out.
    Raises PicturesError if the folder is of no use or `path` is a file of somebody's own, OSError if it cannot be
    written.
    """
    if partition_file.mark_of(path) == "":
        raise PicturesError(f"{path} was not made here and stays as it is: move it away first, or take another --cid")
    classes = _find_classes(folder)
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, class_folder in enumerate(classes.values()):
        pictures = list(_read_pictures(class_folder, SOURCES[dataset].image_shape))
        if not pictures:
            raise PicturesError(
                f"{class_folder} has no picture that can be read: put one there, because all devices have to have the "
                "same classes"
            )
        images += pictures
        labels += [label] * len(pictures)
    if partition_file.mark_of(path) == partition_file.CUT:
        print(f"{path} was cut from the data set: the pictures take its place")
    partition_file.write_pictures(path, Examples(np.stack(images), np.array(labels)), folder, list(classes))
    counts = np.bincount(labels)
    print(f"{path} is ready: {', '.join(f'{name} ({count})' for name, count in zip(classes, counts))}")


def _find_classes(folder: Path) -> dict[str, Path]:
    """Return the folder of each class, by its name, sorted; raises PicturesError if they are too few or too many."""
    if not folder.is_dir():
        raise PicturesError(f"{folder} is no folder: give one with a folder for each class in it")
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    # macOS gives letters such as ä as two characters, other systems as one.
    folders = sorted((unicodedata.normalize("NFC", path.name), path) for path in found if path.is_dir())
    names = [name for name, _ in folders]
    if len(set(names)) < len(names):
        raise PicturesError(f"{folder} has two folders whose names look the same: {', '.join(names)}")
    if not 2 <= len(names) <= MOST_CLASSES:
        listed = f" ({', '.join(names)})" if names else ""
        raise PicturesError(
            f"{folder} has {len(names)} folders{listed}: a model needs 2 to {MOST_CLASSES} classes, each in a folder "
            f"of its own there, such as {folder / 'cat'} and {folder / 'dog'}"
        )
    for path in found:
        if not path.is_dir() and path.name not in NOT_PICTURES:
            print(f"{path} is skipped: it is in no class's folder")
    return dict(folders)


def _read_pictures(folder: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yield the pictures in a folder and the folders in it, one after the other; name the files that are none."""
    for path in _files(folder):
        try:
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("it is no file")
            yield decode_picture(path, shape)
        except Exception as error:  # whatever Pillow stumbles over
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            print(f"{path} is skipped: {reason}")


def _files(folder: Path) -> list[Path]:
    """Return what is in a folder and in its folders, without hidden files, in an order that is the same everywhere.

    Links to folders come as they are: to follow them could lead round in circles.
    """

    def tell(error: OSError) -> None:
        print(f"{error.filename} is skipped: {error.strerror}")

    found = []
    for parent, folders, names in os.walk(folder, onerror=tell):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name) for name in names if not name.startswith(".") and name not in NOT_PICTURES]
    return sorted(found, key=lambda path: unicodedata.normalize("NFC", str(path.relative_to(folder).as_posix())))
