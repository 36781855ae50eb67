"""Output that nobody takes: real processes that print into pipes and terminals without a reader, and full disks."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from federation.output import PATIENCE, make_output_safe

import pytest
from processes import PROMPTLY, ROOT

# It prints more than a pipe or a terminal takes, a progress bar, a traceback; then it says in a file that it is done.
SCRIPT = """
import sys, traceback
from federation import output
output.PATIENCE = 0.2
from federation.flags import ArgumentParser
ArgumentParser("")
from tqdm import tqdm
for number in range(1000):
    print("a line about a device called büro", number, "日本" * 20)
    print("the same", file=sys.stderr)
for _ in tqdm(range(3), disable=None):
    pass
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
sys.stdout.flush()
file = open(sys.argv[1], "w")
print(file.fileno(), "done", file=file)
"""


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_pipe(stack: contextlib.ExitStack, blocking: bool = True) -> int:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    os.set_blocking(writer, blocking)
    return writer


def dead_terminal() -> int:
    """A terminal whose window has been closed: writing is an EIO."""
    window, terminal = os.openpty()
    os.close(window)
    return terminal


def stopped_terminal(stack: contextlib.ExitStack) -> int:
    """A terminal after Ctrl-S."""
    window, terminal = os.openpty()
    stack.callback(os.close, window)
    termios.tcflow(terminal, termios.TCOOFF)
    return terminal


OUTPUTS = {
    "no reader": lambda stack: pipe_without_reader(),
    "a reader that does not read": full_pipe,
    "the same, not blocking": lambda stack: full_pipe(stack, blocking=False),
    "a dead terminal": lambda stack: dead_terminal(),
    "a stopped terminal": stopped_terminal,
    "a full disk": lambda stack: os.open("/dev/full", os.O_WRONLY),
    "closed": lambda stack: None,
}
CASES = [(output, streams, {}) for output in OUTPUTS for streams in ("stdout", "stderr", "stdout, stderr")]
CASES += [
    ("closed", "stdin, stdout, stderr", {}),
    ("no reader", "stdout, stderr", {"PYTHONIOENCODING": "ascii"}),
    ("a full disk", "stdout, stderr", {"PYTHONUNBUFFERED": "1"}),
]


@pytest.mark.parametrize(("output", "streams", "environment"), CASES)
def test_output_that_nobody_takes(tmp_path, output, streams, environment):
    numbers = [("stdin", "stdout", "stderr").index(name) for name in streams.split(", ")]
    with contextlib.ExitStack() as stack:
        descriptor = OUTPUTS[output](stack)
        if descriptor is not None:
            stack.callback(os.close, descriptor)

        def prepare():
            for number in numbers:
                if descriptor is None:
                    os.close(number)
                else:
                    os.dup2(descriptor, number)

        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, tmp_path / "file"], cwd=ROOT, env={**os.environ, **environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=prepare,
            )
        )  # fmt: skip
        stack.callback(process.kill)
        assert process.wait(PROMPTLY) == 0
    number, words = (tmp_path / "file").read_text().split(maxsplit=1)
    assert words == "done\n"
    assert int(number) > 2  # what libraries print in C does not end up in this file


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    code = f"import sys; from federation.output import make_output_safe; make_output_safe()\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, timeout=PROMPTLY
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_what_the_encoding_lacks_is_replaced(encoding):
    code = "print('b\\u00fcro \\u65e5 \\udcff'); print('b\\u00fcro', file=sys.stderr)"
    process = run(code, PYTHONIOENCODING=encoding)
    assert process.returncode == 0
    assert process.stdout == "büro 日 \udcff\n".encode(encoding, "replace")
    assert process.stderr == "büro\n".encode(encoding, "replace")


def test_an_ascii_locale():
    process = run("print('b\\u00fcro')", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (process.returncode, process.stdout) == (0, b"b?ro\n")


def test_all_that_can_be_written_is_written_in_order():
    process = run("for i in range(5000): print(i, 'x' * i)\nprint('no line end', end='')")
    assert process.stdout.decode() == "".join(f"{i} {'x' * i}\n" for i in range(5000)) + "no line end"
    assert process.stderr == b""


def test_each_line_is_there_at_once():
    code = (
        "import time; from federation.output import make_output_safe; make_output_safe(); print('now'); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"now\n"
        finally:
            process.kill()


def test_a_reader_that_pauses_for_a_moment_loses_nothing(monkeypatch):
    reader, writer = os.pipe()
    text = "a line\n" * 30_000
    with open(reader, "rb") as pipe, open(writer, "w") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream)
        make_output_safe()
        writing = threading.Thread(target=lambda: (sys.stdout.write(text), sys.stdout.flush(), stream.close()))
        writing.start()
        time.sleep(PATIENCE / 4)
        assert pipe.read().decode() == text
        writing.join(10)


def test_streams_that_are_no_files_are_left_alone(monkeypatch):
    class Notebook:
        def write(self, text):
            pass

    for stream in (io.StringIO(), io.TextIOWrapper(io.BytesIO()), Notebook()):
        monkeypatch.setattr(sys, "stdout", stream)
        make_output_safe()
        assert sys.stdout is stream


def test_twice_is_as_good_as_once(monkeypatch, tmp_path):
    with Path(tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        make_output_safe()
        once = sys.stdout
        make_output_safe()
        assert sys.stdout is once and once.fileno() == file.fileno() and not once.isatty()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_client_ends_although_nobody_reads_that(number):
    code = (
        "import os, time; from federation.client import connection; connection._exit_at_signals()\n"
        "os.write(2, b'ready'); time.sleep(60)"
    )
    with contextlib.ExitStack() as stack:
        writer = full_pipe(stack, blocking=False)
        stack.callback(os.close, writer)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        command = [sys.executable, "-c", code]
        process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE))
        stack.callback(process.kill)
        assert process.stderr.read(5) == b"ready"
        process.send_signal(number)
        assert process.wait(PROMPTLY) == 128 + number
