"""Lines at the bottom of a terminal that change in place, below whatever is printed."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import threading
import time
from typing import Callable, List

from federation.output import make_safe

REFRESH = 0.5  # seconds
LAST_WORDS = 1.0  # seconds in which the terminal has to take what was printed just before the end

Render = Callable[[int, int], List[str]]  # from the terminal's width and height; no line may be wider


class LiveLines:
    """Shows the lines that `render` returns from `start` to `stop`, if the output goes to a terminal.

    In between, all that this process prints takes a pipe to a thread here, which writes it above the lines: so it does
    not matter who prints, and libraries in C may, too. (Not on Windows, where a console is no file.)
    """

    def __init__(self, render: Render) -> None:
        self.render = render
        self.is_shown = False
        self._lines: list[str] = []
        self._next_look = 0.0
        self._size = os.terminal_size((0, 0))  # of the terminal: columns, lines
        self._unfinished = b""  # the last line of what was printed, as long as no end of it has come

    def start(self) -> None:
        """Show the lines, if there is a terminal that can."""
        if os.name != "posix" or not os.isatty(1) or os.environ.get("TERM") in (None, "", "dumb"):
            return
        self._terminal = make_safe(open(os.dup(1), "w", encoding=sys.stdout.encoding))  # noqa: SIM115, PTH123
        self._redirected = [file for file in (1, 2) if os.path.sameopenfile(1, file)]
        self._pipe, writer = os.pipe()
        for file in self._redirected:
            os.dup2(writer, file)
        os.close(writer)
        self.is_shown = True
        self._thread = threading.Thread(target=self._run, daemon=True, name="live lines")
        self._thread.start()

    def stop(self) -> None:
        """Take the lines away; what is printed from now on goes to the terminal again."""
        if self.is_shown:
            self.is_shown = False
            for file in self._redirected:
                os.dup2(self._terminal.fileno(), file)
            self._thread.join(LAST_WORDS)  # which has found the end of the pipe

    def _run(self) -> None:
        self._draw(b"", is_over=False)
        while True:
            has_news = bool(select.select([self._pipe], [], [], REFRESH)[0])
            printed = os.read(self._pipe, 65536) if has_news else b""
            is_over = has_news and not printed
            self._draw(printed, is_over)
            if is_over:
                return

    def _draw(self, printed: bytes, is_over: bool) -> None:
        """Write what was printed over the old lines, and the new ones below it, in one go."""
        terminal = self._terminal.fileno()
        before, self._size = self._size, _size_of(terminal)
        is_resized = self._size != before
        # A terminal that has become narrower has broken the lines.
        rows = sum(max(1, -(-_width(line) // self._size.columns)) for line in self._lines)
        home = f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"
        whole, newline, self._unfinished = (self._unfinished + printed).rpartition(b"\n")
        if is_over:
            newline, self._unfinished = newline + self._unfinished, b""
        if not _is_in_front(terminal):  # somebody types there now, who does not want the lines
            self._lines = []
            self._terminal.buffer.write(whole + newline)
            return
        if is_over:
            self._lines = []
        elif is_resized or time.monotonic() >= self._next_look:
            self._lines = self._rendered()
            self._next_look = time.monotonic() + REFRESH
        if printed or is_resized or is_over:
            home += "\x1b[J"
        lines = "\x1b[K\n".join(self._lines).encode(self._terminal.encoding, "replace")
        self._terminal.buffer.write(home.encode() + whole + newline + lines + b"\x1b[J")

    def _rendered(self) -> list[str]:
        try:
            return self.render(self._size.columns - 1, self._size.lines)
        except Exception as error:  # must not keep what is printed from the terminal
            return [f"{type(error).__name__}: {error}"]


def bar(part: float, width: int) -> str:
    """Draw how much of something is done, from 0 to 1."""
    try:
        full, empty = "━", "─"
        full.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        full, empty = "#", "."
    length = round(part * width)
    return full * length + empty * (width - length)


def _is_in_front(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is not this process's own terminal, as in a container
        return True


def _size_of(terminal: int) -> os.terminal_size:
    with contextlib.suppress(OSError):  # its window is gone
        size = os.get_terminal_size(terminal)
        if size.columns > 1 and size.lines > 1:  # else it does not know
            return size
    return os.terminal_size((80, 24))


def _width(line: str) -> int:
    """Return how many columns a line takes, without colours."""
    return len(re.sub(r"\x1b\[[\d;]*m", "", line))
