"""Pictures that are decoded one at a time, when they are needed: photos in a folder, and images of a partition."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Protocol, Sequence

from federation.data.hub import DataError
from federation.data.images import decode_image
from federation.data.partition_file import Examples
from federation.data.photos import class_folders, photo_files
from federation.files import replaced
from federation.flags import MOST_CLASSES, Failure

import numpy as np

VALIDATE_EVERY = 10
CLASSIFIER = "classifier.npz"


class Picture(Protocol):
    """An image that is decoded when it is needed; `key` is the same for the same content."""

    key: bytes

    def pixels(self, size: int) -> np.ndarray | None:
        """The image in colour, uint8 [size, size, 3]; None, after printing the reason, if it cannot be decoded."""


class Array:
    """A picture whose pixels are in memory: uint8 [height, width, 1 or 3]."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.key = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()

    def pixels(self, size: int) -> np.ndarray | None:
        """The image, scaled; a grey one becomes RGB."""
        from PIL import Image  # here: other clients do not need it

        colour = np.broadcast_to(self.image, (*self.image.shape[:2], 3))
        return np.asarray(Image.fromarray(np.ascontiguousarray(colour)).resize((size, size), Image.Resampling.BICUBIC))


class Photo:
    """A picture in a file; only its middle is used."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path, self.key = path, key

    def pixels(self, size: int) -> np.ndarray | None:
        """The largest square in the middle of the photo."""
        try:
            return decode_image(self.path, (size, size, 3), fit=True)
        except Exception as error:  # whatever Pillow raises
            _leave_out(self.path, error)
            return None


def pictures_of(images: Iterable[Any]) -> list[Picture]:
    """The images of `Examples` as pictures: arrays are wrapped, photos are pictures already."""
    return [Array(image) if isinstance(image, np.ndarray) else image for image in images]


class Classifier(NamedTuple):
    """What `PhotoFolder.keep` wrote last."""

    classes: list[str]
    weights: np.ndarray  # float32 [features + 1, classes]
    round: int  # 0: before the first
    accuracy: float  # on this board's validation photos; NaN if it has none


def read_classifier(folder: Path) -> Classifier | None:
    """The classifier beside the photos in a folder; None if there is none yet, or a damaged one."""
    try:
        with np.load(folder / CLASSIFIER, allow_pickle=False) as kept:
            return Classifier(kept["classes"].tolist(), kept["weights"], int(kept["round"]), float(kept["accuracy"]))
    except Exception:  # whatever NumPy and zipfile raise
        return None


class PhotoFolder:
    """Photos in one folder per class: photos/cup/1.jpg, photos/spoon/1.jpg... They may change at any time.

    A class may have no photo or folder here: other clients may have photos of it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises DataError if there is no such folder; see `choose_classes`."""
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: give one that contains a folder for each class", exit_code=2)
        self.folder = folder
        self.classes: list[str] = []  # their positions are the labels
        self._untaught: list[str] = []
        self._keys: dict[Path, tuple[tuple[int, int], bytes]] = {}  # by time and size, of the files read so far

    def choose_classes(self, told: Sequence[str] = ()) -> list[str]:
        """Use the classes that the server sent (`told`); if none, those chosen before, or all that have a folder.

        Raises Failure if there are not 2 to 100, or if the folder cannot be read.
        """
        there = [*self._folders()]
        if told and list(told) != self.classes:
            self.classes = list(told)
            others = [name for name in there if name not in told]
            left_out = f"; not used in {self.folder}: {', '.join(others)}" if others else ""
            print(f"the classes are {', '.join(told)}{left_out}")
        if not self.classes:
            if not 2 <= len(there) <= MOST_CLASSES:
                raise DataError(
                    f"{self.folder} has {len(there)} class folders ({', '.join(there)}), not 2 to {MOST_CLASSES}: make "
                    f"some, such as {self.folder / 'cup'}, or name the classes on the server: --classes cup,spoon",
                    exit_code=2,
                )
            self.classes = there
        kept = read_classifier(self.folder)
        if kept is None or kept.classes != self.classes:
            self.keep(np.full((1, len(self.classes)), -np.inf, np.float32))
        return self.classes

    def read(self) -> tuple[Examples, Examples]:
        """The current photos: the training set, and the validation set, about every tenth, chosen by its content."""
        photos = self.read_all()
        validates = [int.from_bytes(photo.key[:8], "big") % VALIDATE_EVERY == 0 for photo in photos.images]
        train, validation = np.flatnonzero(np.logical_not(validates)), np.flatnonzero(validates)
        return Examples(*(part[train] for part in photos)), Examples(*(part[validation] for part in photos))

    def read_test_set(self) -> Examples:
        """All photos that can be decoded; raises DataError if there are none."""
        photos = self.read_all()
        can_be = [i for i, photo in enumerate(photos.images) if photo.pixels(8) is not None]
        if not can_be:
            raise DataError(f"{self.folder} has no photo of {', '.join(self.classes)} to test on", exit_code=2)
        return Examples(*(part[can_be] for part in photos))

    def read_all(self) -> Examples:
        """All current photos; raises Failure if the folder cannot be read."""
        folders = self._folders()
        found: list[tuple[Photo, int]] = []
        for label, name in enumerate(self.classes):
            for path in photo_files(folders[name]) if name in folders else ():
                key = self._key(path)
                if key:
                    found.append((Photo(path, key), label))
        images = np.empty(len(found), object)
        images[:] = [photo for photo, _ in found]
        return Examples(images, np.array([label for _, label in found], np.int64))

    def keep(self, weights: np.ndarray, server_round: int = 0, accuracy: float = math.nan) -> None:
        """Write a classifier beside the photos; if that fails, print why and go on.

        Its weights [features + 1, classes] are minus infinity in the last row for a class without photos: before the
        first round, for all classes. `accuracy` is on the validation photos here, if there are any.
        """
        untaught = [name for name, bias in zip(self.classes, weights[-1]) if np.isinf(bias) and server_round]
        if untaught != self._untaught:
            self._untaught = untaught
            if untaught:
                print(f"no client has a photo of these classes, so they are never recognised: {', '.join(untaught)}")
        try:
            with replaced(self.folder / CLASSIFIER) as file:
                np.savez(file, weights=weights, classes=np.array(self.classes), round=server_round, accuracy=accuracy)
        except OSError as error:
            print(f"cannot write {self.folder / CLASSIFIER}: {error.strerror or error}")

    def _folders(self) -> dict[str, Path]:
        try:
            return dict(class_folders(self.folder))
        except OSError as error:  # its drive is gone, for example
            raise Failure(f"cannot read {self.folder}: {error.strerror or error}") from error

    def _key(self, path: Path) -> bytes:
        """The hash of a file's content; empty if it cannot be read, which is printed once."""
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_size
            if self._keys.get(path, (None,))[0] != version:
                self._keys[path] = version, b""
                self._keys[path] = version, hashlib.sha256(path.read_bytes()).digest()
        except FileNotFoundError:  # gone in the meantime
            return b""
        except OSError as error:
            _leave_out(path, error)
        return self._keys.get(path, (None, b""))[1]


def _leave_out(path: Path, error: Exception) -> None:
    print(f"{path} is skipped: {getattr(error, 'strerror', None) or error}")
