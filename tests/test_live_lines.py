"""Lines that change in place below what is printed: real processes in a terminal, whose bytes a small screen reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import textwrap
import time

from federation import live_lines

import pytest
from processes import PROMPTLY, ROOT

# What a script prints goes by Python and, past it, to the file of the process; the lines count.
SCRIPT = """
import os, sys, time
from federation.flags import ArgumentParser
from federation.live_lines import LiveLines
ArgumentParser("")
numbers = iter(range(1000))
lines = LiveLines(lambda width, height: [f"-- {next(numbers)} of {width} x {height} --", "-- second --"])
"""


def run(body: str, columns: int = 40, rows: int = 12, during=lambda terminal: None, **environment: str) -> bytes:
    """Return what a script writes to its terminal, which ends with it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ.update({"TERM": "xterm", "PYTHONPATH": str(ROOT), **environment})
        os.execv(sys.executable, [sys.executable, "-c", SCRIPT + textwrap.dedent(body)])
    resize(terminal, columns, rows)
    was_ready = False
    output, deadline = b"", time.monotonic() + PROMPTLY
    os.set_blocking(terminal, False)
    try:
        while time.monotonic() < deadline:
            try:
                output += os.read(terminal, 65536)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # all who had it open have ended
                break
            if b"ready" in output and not was_ready:
                was_ready = True
                during(terminal)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    return output


def resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def screen(output: bytes) -> list[str]:
    """What is then on a terminal that does what is used here: new lines, up, erase the rest of a line or of all."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", output.decode()):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1])
            assert row >= 0
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        else:
            assert not part.startswith("\x1b"), part
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_what_is_printed_is_above_and_nothing_else_stays():
    output = run("""
        print("before")
        lines.start()
        print("by Python")
        print("without an end", end="", flush=True)
        time.sleep(1.2)
        print(", ended")
        os.write(2, b"by a library\\n")
        print("to stderr", file=sys.stderr)
        os.system("echo by a child")
        for number in range(300):
            print("line", number)
        print("last", end="")
        lines.stop()
        lines.stop()
        print(", after")
    """)
    expected = ["before", "by Python", "without an end, ended", "by a library", "to stderr", "by a child"]
    expected += [f"line {number}" for number in range(300)]
    assert screen(output) == [*expected, "last, after", ""]
    shown = [int(number) for number in re.findall(rb"-- (\d+) of 39 x 12 --", output)]
    assert shown == sorted(shown) and 2 <= max(shown) <= 10  # they are made anew twice a second, not for each line


def test_the_lines_are_the_last_ones():
    output = run("""
        lines.start()
        print("above")
        time.sleep(0.7)
        print("above, too")
        time.sleep(0.3)
        os._exit(0)
    """)
    assert screen(output) == ["above", "above, too", "-- 1 of 39 x 12 --", "-- second --"]


def test_a_terminal_that_becomes_narrower():
    """Where it breaks the old lines, it has so many more of them."""
    output = run(
        """
        lines = LiveLines(lambda width, height: ["x" * width, "y" * width])
        lines.start()
        print("ready")
        time.sleep(1.5)
        lines.stop()
        """,
        columns=60,
        during=lambda terminal: resize(terminal, 25, 12),
    )
    last_wide = output.rindex(b"y" * 59)
    up = re.search(rb"\r\x1b\[(\d+)A\x1b\[J" + b"x" * 24 + rb"\x1b", output[last_wide:])
    assert up and int(up[1]) == 2 * 3 - 1  # 59 columns in rows of 25


def test_a_terminal_that_does_not_know_its_size():
    output = run("lines.start(); time.sleep(0.2); lines.stop()", columns=0, rows=0)
    assert b"of 79 x 24" in output


def test_in_the_background_there_are_no_lines():
    output = run("""
        lines.start()
        time.sleep(0.2)
        import signal
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.tcsetpgrp(0, child)  # who typed the command types the next one now
        print("printed")
        time.sleep(1.2)
        os.kill(child, 9)
        os._exit(0)
    """)
    assert output.endswith(b"printed\r\n")  # and nothing where somebody types


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_a_terminal_that_cannot(terminal):
    output = run("lines.start(); print(lines.is_shown); lines.stop(); print('end')", TERM=terminal)
    assert output == b"False\r\nend\r\n"


def test_no_terminal(capfd):
    lines = live_lines.LiveLines(lambda width, height: ["never"])
    lines.start()
    print("printed")
    lines.stop()
    assert not lines.is_shown and capfd.readouterr().out == "printed\n"


def test_an_error_in_what_is_to_be_shown():
    output = run("""
        lines = LiveLines(lambda width, height: 1 / 0)
        lines.start()
        print("printed")
        time.sleep(0.2)
        lines.stop()
    """)
    assert b"ZeroDivisionError: division by zero" in output and screen(output) == ["printed", ""]


def test_a_terminal_that_goes_away():
    """Its window is closed: the process goes on, and ends."""
    output = run("""
        import signal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        lines.start()
        os.close(0)
        print("printed")
        lines.stop()
        print("end")
    """)
    assert screen(output) == ["printed", "end", ""]


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", "━━──"), ("ascii", "##.."), ("latin-1", "##..")])
def test_a_bar(monkeypatch, encoding, expected):
    class Stdout:
        def __init__(self) -> None:
            self.encoding = encoding

    monkeypatch.setattr(sys, "stdout", Stdout())
    assert live_lines.bar(0.5, 4) == expected
    assert {len(live_lines.bar(part, 10)) for part in (0, 0.01, 0.99, 1)} == {10}
