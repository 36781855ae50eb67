"""Write files so that a kill or a power cut leaves the old content or the new one, never half of it, and no litter."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import BinaryIO, Iterator

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
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644) if unnamed is None else unnamed
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            if unnamed is not None:
                # With src_dir_fd, whatever it is, Python calls linkat(2), which follows that link to the open file.
                os.link(f"{OWN_FILES}/{descriptor}", temporary, src_dir_fd=descriptor)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


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
