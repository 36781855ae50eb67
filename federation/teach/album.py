"""The photos taken on this board, and the classifier that its client keeps beside them."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

from federation.data.photos import class_folders, photo_files
from federation.data.pictures import CLASSIFIER, Classifier, read_classifier
from federation.files import replaced
from federation.flags import checked_name

FREE_MB = 50  # that photos leave on the card
COUNT_EVERY = 5  # seconds between two looks at all files


class Album:
    """Photos in a folder for each class. Files are written whole; a missing folder is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: list[Path] = []  # since the start, for `undo`
        self._numbers = itertools.count()
        self._counts: Counter[str] = Counter()
        self._count_at = 0.0  # by time.monotonic()
        self._lock = threading.Lock()
        self._known: tuple[tuple[int, int], Classifier | None] | None = None  # by the file's time and size

    def classifier(self) -> Classifier | None:
        """The newest classifier; None until a client has joined a server."""
        try:
            status = (self.folder / CLASSIFIER).stat()
        except OSError:
            return None
        version = status.st_mtime_ns, status.st_size
        known = self._known
        if known is None or known[0] != version:
            known = self._known = version, read_classifier(self.folder)
        return known[1]

    def classes(self) -> list[str]:
        """The names of the classes: those of the federation, or all that have a folder here."""
        known = self.classifier()
        return known.classes if known else list(self._folders())

    def counts(self) -> dict[str, int]:
        """The number of photos of each class on this board; changes by others show within seconds."""
        with self._lock:
            if time.monotonic() >= self._count_at:
                folders = self._folders()
                self._counts = Counter({name: len(list(photo_files(path))) for name, path in folders.items()})
                self._count_at = time.monotonic() + COUNT_EVERY
            return {name: self._counts[name] for name in self.classes()}

    def add_class(self, name: str) -> None:
        """Make a class; raises ValueError if it cannot have that name, or if the server names the classes."""
        if self.classifier():
            raise ValueError("the laptop names the classes (--classes)")
        (self.folder / checked_name(name)).mkdir(parents=True, exist_ok=True)
        self._count_at = 0.0

    def take(self, name: str, jpeg: bytes) -> None:
        """Keep a photo; raises ValueError if there is no such class, OSError if it cannot be written."""
        if name not in self.classes():
            raise ValueError(f"there is no class {name!r}")
        if shutil.disk_usage(self.folder).free < FREE_MB * 1e6:
            raise OSError("there is no space left on the card")
        folder = self._folders().get(name, self.folder / name)
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}-{next(self._numbers)}.jpg"
        with replaced(path) as file:
            file.write(jpeg)
        with self._lock:
            self._taken.append(path)
            self._counts[name] += 1

    @property
    def can_undo(self) -> bool:
        """Whether there is a photo, taken since the start, to undo."""
        return bool(self._taken)

    def undo(self) -> None:
        """Remove the photo taken last, if there is one."""
        with self._lock:
            if self._taken:
                with contextlib.suppress(FileNotFoundError):  # somebody else has removed it
                    self._taken.pop().unlink()
                self._count_at = 0.0

    def _folders(self) -> dict[str, Path]:
        return dict(class_folders(self.folder)) if self.folder.is_dir() else {}
