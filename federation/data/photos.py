"""Make a partition from your own photos, in one folder per class: for a device that trains on its own data.

The folder is laid out as for torchvision's ImageFolder, Keras and `datasets`: photos/cat/1.jpg, photos/dog/1.jpg...
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Iterator

from federation.data import partition_file
from federation.data.hub import SOURCES, DataError
from federation.data.images import decode_image
from federation.data.partition_file import Examples
from federation.flags import FOREIGN_BEGINNINGS

import numpy as np

MOST_CLASSES = 10  # that the models can tell apart
FOREIGN_FOLDERS = "System Volume Information", "lost+found"


def write_photos(path: Path, dataset: str, folder: Path) -> None:
    """Write the photos in `folder` to `path`, as a partition or a test split for a model of `dataset`.

    A photo's label is the position of its class in the sorted names. Unreadable files are skipped, with a message.
    Raises DataError if `path` exists or the folder cannot be used, OSError if `path` cannot be written.
    """
    if os.path.lexists(path):
        raise DataError(f"{path} exists already: remove it first, or use another --cid", exit_code=2)
    classes = _find_classes(folder)
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, (_, class_folder) in enumerate(classes):
        photos = list(_read_photos(class_folder, SOURCES[dataset].image_shape))
        if not photos:
            reason = "has no readable picture: put one there, because all devices need the same classes"
            raise DataError(f"{class_folder} {reason}", exit_code=2)
        images += photos
        labels += [label] * len(photos)
    partition_file.write(path, Examples(np.stack(images), np.array(labels)), [name for name, _ in classes])
    print(", ".join(f"{name} ({count})" for (name, _), count in zip(classes, np.bincount(labels))))


def class_folders(folder: Path) -> list[tuple[str, Path]]:
    """The name and the folder of each class, sorted; without folders that systems make."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not _is_foreign(path.name)]
    # macOS gives letters such as ä as two characters, other systems as one.
    return sorted((unicodedata.normalize("NFC", path.name), path) for path in folders)


def photo_files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, sorted; without those that systems make."""
    for path in sorted(folder.rglob("*")):
        parents = path.relative_to(folder).parent.parts
        if not path.name.startswith(".") and not any(map(_is_foreign, parents)) and path.is_file():
            yield path


def _find_classes(folder: Path) -> list[tuple[str, Path]]:
    """The name and the folder of each class, sorted; raises DataError if they are too few or too many."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give one that contains a folder for each class", exit_code=2)
    classes = class_folders(folder)
    if not 2 <= len(classes) <= MOST_CLASSES:
        names = ", ".join(name for name, _ in classes)
        raise DataError(
            f"{folder} has {len(classes)} class folders ({names}): a model needs 2 to "
            f"{MOST_CLASSES} classes, such as {folder / 'cat'} and {folder / 'dog'}",
            exit_code=2,
        )
    return classes


def _read_photos(folder: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yield the photos in a folder and its subfolders, one after the other; print which files are skipped."""
    for path in photo_files(folder):
        try:
            yield decode_image(path, shape, fit=True)
        except Exception as error:  # whatever Pillow raises
            print(f"{path} is skipped: {getattr(error, 'strerror', None) or error}")


def _is_foreign(folder: str) -> bool:
    """Whether a system, not a user, made a folder with this name."""
    return folder.startswith(FOREIGN_BEGINNINGS) or folder in FOREIGN_FOLDERS
