"""Output that cannot fail: whether anybody takes what is printed decides nothing."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TextIO

PATIENCE = 2.0  # seconds in which somebody has to read a pipe that is full, or let a terminal go on after Ctrl-S
CHUNK = 512  # bytes for which there is room in a pipe, if the system says that there is any (POSIX's smallest PIPE_BUF)


def make_output_safe() -> None:
    """From now on, print as far as possible what this process prints, each line at once, and never raise an error.

    What the encoding lacks becomes a question mark. What cannot be written is dropped: the terminal or the reader of a
    pipe is gone or keeps it waiting, the disk is full, the stream was closed from the start.
    """
    # If a stream was closed, the next file to be opened, maybe the model, would get its descriptor, and with it what
    # libraries print in C. So /dev/null takes the place of all three.
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
    sys.stdout, sys.stderr = make_safe(sys.stdout), make_safe(sys.stderr)


def make_safe(stream: TextIO | None) -> TextIO:
    """Return a stream that writes to the file of `stream`, None being closed, without its errors and endless waits."""
    if stream is None:
        stream = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        stream.fileno()
        if isinstance(stream.buffer, _SafeFile) or "write" in vars(stream):  # Flower has replaced it, for its log
            return stream
    except (AttributeError, TypeError, OSError):  # no file of the system, but a notebook's or a test's
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(_SafeFile(stream), stream.encoding, errors="replace", line_buffering=True)


class _SafeFile(io.RawIOBase):
    """The binary file behind a stream, without its errors and endless waits."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream  # would close its file if nobody held it
        self.name = stream.name
        self.file = getattr(stream.buffer, "raw", stream.buffer)
        self.patience = PATIENCE

    def fileno(self) -> int:
        return self.file.fileno()

    def isatty(self) -> bool:
        return self.file.isatty()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def, override]
        rest = memoryview(data)
        with contextlib.suppress(OSError, ValueError):
            while rest and self._has_room():
                rest = rest[self.file.write(rest[:CHUNK]) or len(rest) :]
        return len(data)

    def _has_room(self) -> bool:
        """Wait until what is written is taken, but only once as long as it is not."""
        try:
            has_room = bool(select.select([], [self.file], [], self.patience)[1])
        except (OSError, ValueError):  # Windows can wait for sockets only
            return True
        self.patience = PATIENCE if has_room else 0.0
        return has_room
