"""Write files so that a kill or a power cut leaves the old content or the new one, never half of it, and no litter."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Iterator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CANNOT_SYNC = errno.EINVAL, errno.ENOSYS, errno.ENOTSUP  # what network drives and FUSE say that have no fsync
OWN_FILES = "/proc/self/fd"  # Linux: the open files of this process, whether or not they have a name


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that becomes `path` when the block ends without an error.

    The data is flushed to the disk before that. Raises OSError if the folder cannot be written or the disk is full;
    `path` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    unnamed = _open_unnamed(path.parent)  # None: a file with a name, which a kill leaves behind
    try:
        with os.fdopen(_open_new(temporary) if unnamed is None else unnamed, "w+b") as file:
            yield file
            _sync(file)
            if unnamed is not None:
                _give_name(file, temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # it is not there yet, or its drive has gone
            temporary.unlink()
        raise


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Open a figure of that size in inches, which becomes the picture `path` when the block ends without an error.

    Raises ImportError without matplotlib, OSError if the file cannot be written, ValueError if its suffix is no format.
    """
    os.environ.pop("MPLBACKEND", None)  # a notebook's; matplotlib refuses to be imported if it does not have that one
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    picture = io.BytesIO()  # drawing takes long: whoever is killed over it leaves no file behind
    figure.savefig(picture, format=path.suffix[1:] or "png", dpi=100)
    with replaced(path) as file:
        file.write(picture.getvalue())


def _open_new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


def _open_unnamed(folder: Path) -> int | None:
    """Return a descriptor of a new file without a name, which is gone when this process is, however it ends.

    Only Linux has such files, and not on all file systems: None where there are none.
    """
    if not hasattr(os, "O_TMPFILE") or not Path(OWN_FILES).is_dir():
        return None
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o644)
    except OSError:  # for instance on FAT and on network drives
        return None


def _sync(file: BinaryIO) -> None:
    """Flush what has been written to the disk, if the file system can say when it is there."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


def _give_name(unnamed: BinaryIO, path: Path) -> None:
    """Give a file without a name this one, or else, where the file system refuses that, a copy of it."""
    descriptor = unnamed.fileno()
    try:
        # With src_dir_fd, whatever it is, Python calls linkat(2), which follows that link to the open file.
        os.link(f"{OWN_FILES}/{descriptor}", path, src_dir_fd=descriptor)
    except OSError:
        unnamed.seek(0)
        with os.fdopen(_open_new(path), "w+b") as copy:
            shutil.copyfileobj(unnamed, copy)
            _sync(copy)
