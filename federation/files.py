"""Write files so that a kill or a power cut leaves the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Iterator

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that becomes `path` when the block ends without an error.

    The data is flushed to the disk before that. Raises OSError if the folder cannot be written or the disk is full;
    `path` then stays unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            _sync(file)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # it is not there yet, or its drive has gone
            temporary.unlink()
        raise


def _sync(file: BinaryIO) -> None:
    """Wait until what was written is on the disk. Some network drives do not support that: it is skipped there."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Open a figure of that size in inches, which becomes the picture `path` when the block ends without an error.

    Raises ImportError without matplotlib, OSError if the file cannot be written, ValueError if its suffix is unknown.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    picture = io.BytesIO()  # drawing takes long: a process killed meanwhile leaves no file behind
    figure.savefig(picture, format=path.suffix[1:] or "png", dpi=100)
    with replaced(path) as file:
        file.write(picture.getvalue())


def remove_leftovers(folder: Path) -> None:
    """Remove what `replaced` left in a folder when its process was killed; raises OSError if that is not possible."""
    for leftover in folder.glob(f".*.{'[0-9a-f]' * 8}.tmp"):
        leftover.unlink()
