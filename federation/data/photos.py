"""Your own photos, in a folder for each class, made into a partition: for a device that trains on what it has itself.

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

import numpy as np

MOST_CLASSES = 10  # what the models tell apart
FOREIGN_FILES = "Thumbs.db", "desktop.ini"  # what Windows puts into folders; other systems' files begin with a dot
# Folders that no user made: .git, @eaDir, $RECYCLE.BIN, __MACOSX, #recycle, ~snapshot, and two more names.
FOREIGN_BEGINNINGS = tuple(".@$_#~")
FOREIGN_FOLDERS = "System Volume Information", "lost+found"


def write_photos(path: Path, dataset: str, folder: Path) -> None:
    """Make the photos in `folder` into `path`, a partition or a test split for a model of `dataset`.

    A photo's label is the place of its class among the sorted names. What cannot be read is skipped, with a message.
    Raises DataError if there is a file at `path`, or if the folder cannot be used, OSError if `path` cannot be written.
    """
    if partition_file.exists(path):
        raise DataError(f"{path} is there already: remove it first, or take another --cid", exit_code=2)
    classes = _find_classes(folder)
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, class_folder in enumerate(classes.values()):
        images += _read_photos(class_folder, SOURCES[dataset].image_shape)
        if len(images) == len(labels):
            reason = "has no picture that can be read: put one there, because all devices need the same classes"
            raise DataError(f"{class_folder} {reason}", exit_code=2)
        labels += [label] * (len(images) - len(labels))
    partition_file.write(path, Examples(np.stack(images), np.array(labels)), list(classes))
    print(", ".join(f"{name} ({count})" for name, count in zip(classes, np.bincount(labels))))


def _find_classes(folder: Path) -> dict[str, Path]:
    """The folder of each class, by its name, sorted; raises DataError if they are too few or too many."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give one with a folder for each class in it", exit_code=2)
    folders = [path for path in folder.iterdir() if path.is_dir() and not _is_foreign(path)]
    # macOS gives letters such as ä as two characters, other systems as one.
    classes = dict(sorted((unicodedata.normalize("NFC", path.name), path) for path in folders))
    if len(classes) < len(folders) or not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"{folder} has {len(folders)} folders for classes ({', '.join(sorted(path.name for path in folders))}): a "
            f"model needs 2 to {MOST_CLASSES} classes with different names, such as {folder / 'cat'} and "
            f"{folder / 'dog'}",
            exit_code=2,
        )
    return classes


def _read_photos(folder: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yield the photos in a folder and the folders in it, one after the other; name the files that are none."""
    for path in _files(folder):
        try:
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("it is no file")
            yield decode_image(path, shape, fit=True)
        except Exception as error:  # whatever Pillow stumbles over
            print(f"{path} is skipped: {getattr(error, 'strerror', None) or error}")


def _files(folder: Path) -> list[Path]:
    """What is in a folder and in its folders, except what no user put there, in an order that is the same everywhere.

    Links to folders come as they are: to follow them could lead round in circles.
    """
    found = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: print(f"skipped: {error}")):
        folders[:] = [name for name in folders if not _is_foreign(Path(parent, name))]
        names += [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name) for name in names if not (name.startswith(".") or name in FOREIGN_FILES)]
    return sorted(found, key=lambda path: unicodedata.normalize("NFC", path.relative_to(folder).as_posix()))


def _is_foreign(folder: Path) -> bool:
    """Whether a folder looks as if no user made it; says so, unless it is hidden."""
    is_foreign = folder.name.startswith(FOREIGN_BEGINNINGS) or folder.name in FOREIGN_FOLDERS
    if is_foreign and not folder.name.startswith("."):
        print(f"{folder} is skipped: such names are taken for folders of the system")
    return is_foreign
