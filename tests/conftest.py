"""Start the real scripts as processes, with a deadline on every wait, and leave none of them behind."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Where the tests run in the background, the shell has Ctrl-C ignored, and so would all scripts that start here.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ("pytorch", "tf")

# A server on the newest Flower, and the package sets of the images for Jetsons, with Python 3.8; run_tests.sh installs
# them where it can.
NEWEST = ROOT / ".venv-newest/bin/python"
PY38_TF = ROOT / ".venv-py38-tf/bin/python"
PY38_PYTORCH = ROOT / ".venv-py38-pytorch/bin/python"
needs_newest = pytest.mark.skipif(not NEWEST.exists(), reason="the newest Flower needs Python 3.11")
needs_py38_tf = pytest.mark.skipif(not PY38_TF.exists(), reason="there is no Python 3.8 on this machine")
needs_py38_pytorch = pytest.mark.skipif(
    not PY38_PYTORCH.exists(), reason="run_tests.sh --all makes .venv-py38-pytorch, if there is a Python 3.8"
)


# The faults that a federation has to survive. A test that shows one of them has the mark `row(number)`; the report at
# the end of a test run lists them.
ROWS = {
    1: "a client that starts 30 s before the server",
    2: "a client that is killed, idle or in mid-fit",
    3: "a client whose fit raises an error",
    4: "fewer clients than the minimum remain",
    5: "a replacement joins in time",
    6: "60 s without network while a result is under way",
    7: "300 s without network while the client is idle",
    8: "a client that is frozen while it gets a large model",
    9: "a result that comes after the timeout",
    10: "a server that is killed, at any moment, and resumed",
    11: "a server killed while it writes a checkpoint; a full disk",
    12: "Ctrl-C and SIGTERM to the server",
    13: "Ctrl-C and SIGTERM to a client",
    14: "an error in the strategy, the report, the evaluation",
    15: "a bad result among good ones",
    16: "a round in which all clients fail",
    17: "the client asked for the initial model dies",
    18: "a client that does not fit the others",
    19: "wrong certificates, TLS on one side only",
    20: "a client without the token",
    21: "no internet",
    22: "50 normal runs on Python 3.8 with Flower 1.11.1",
    23: "200 servers that come and go",
    24: "Flower 1.6.0, 1.11.1, 1.25 and 1.41 in one federation",
    25: "random bytes, HTTP and 1,000 connections to the server's port",
}


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also run what takes minutes or needs root")


def pytest_configure(config):
    config.addinivalue_line("markers", "row(number): shows that the federation survives this fault")
    config.addinivalue_line("markers", "slow: takes minutes; runs with --all only")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: ./run_tests.sh --all"))
        for mark in item.iter_markers("row"):
            item.user_properties.append(("row", mark.args[0]))


def pytest_terminal_summary(terminalreporter):
    """List the faults, what came of their tests and how long these took, and the figures that tests recorded."""
    figures = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)
    outcomes: dict[int, dict[str, int]] = {}
    seconds: dict[int, float] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for row in [value for name, value in report.user_properties if name == "row"]:
                counts = outcomes.setdefault(row, {})
                counts[outcome] = counts.get(outcome, 0) + 1
                seconds[row] = seconds.get(row, 0) + report.duration
    if outcomes:
        terminalreporter.section("faults survived")
        for row, counts in sorted(outcomes.items()):
            counted = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            terminalreporter.line(f"{row:>3}  {ROWS[row]:<63} {counted:<22} {seconds[row]:6.1f} s")


class Process:
    """A running script; its output, stdout and stderr together, goes to a file."""

    def __init__(self, command: list[str], log: Path, **popen_arguments) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **popen_arguments.pop("env", {})}
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, **{"cwd": ROOT, **popen_arguments}
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def own_lines(self) -> list[str]:
        """The output without what TensorFlow 2.21 greets with on x86_64, whatever TF_CPP_MIN_LOG_LEVEL says."""
        greetings = "absl::InitializeLog", "oneDNN custom operations", "failed call to cuInit"
        return [line for line in self.output.splitlines() if not any(words in line for words in greetings)]

    def wait_for(self, text: str, timeout: float = 60, count: int = 1) -> None:
        """Wait until the output has `text` at least `count` times."""
        deadline = time.monotonic() + timeout
        while self.output.count(text) < count:
            ended = self.popen.poll() is not None
            if self.output.count(text) >= count:  # it may have come just before the end
                return
            assert not ended, f"ended with {self.popen.returncode} before {text!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} within {timeout} s:\n{self.output}"
            time.sleep(0.05)

    def exit_code(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout} s:\n{self.output}")


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a script of the project; what still runs at the end of the test is killed."""
    processes = []

    def start(script: str, *arguments: object, python: str | Path = sys.executable, **popen_arguments) -> Process:
        command = [str(python), script, *map(str, arguments)]
        log = tmp_path / f"{len(processes)}-{Path(script).stem}.log"
        processes.append(Process(command, log, **popen_arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.popen.kill()
        process.popen.wait()


@pytest.fixture
def address() -> str:
    """A free address on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(
    params=[
        pytest.param((sys.executable, sys.executable), id=""),
        pytest.param(
            (NEWEST, PY38_PYTORCH),
            id="Flower 1.41 and 1.11",
            marks=[pytest.mark.slow, needs_newest, needs_py38_pytorch],
        ),
    ]
)
def pythons(request) -> tuple[str | Path, str | Path]:
    """The Pythons of the server and of tests/device.py."""
    return request.param


@pytest.fixture
def results(tmp_path) -> Path:
    """Where start_server has the server write its results."""
    return tmp_path / "results"


@pytest.fixture
def start_server(start, address, results, pythons):
    """Return a function that starts the server on `address` and waits until it listens."""

    def start_server(*arguments, python: str | Path = pythons[0], **popen_arguments) -> Process:
        folder = () if "--resume" in arguments else ("--results_dir", results)
        arguments = ("--server_address", address, *folder, *arguments)
        server = start("server.py", *arguments, python=python, **popen_arguments)
        server.wait_for(f"clients connect with --server_address={address}")
        return server

    return start_server


@pytest.fixture
def start_device(start, address, pythons):
    """Return a function that starts tests/device.py as client `cid`, with `faults` as described there."""

    def start_device(cid: int, *arguments, python: str | Path = pythons[1], **faults) -> Process:
        arguments = ("--cid", cid, "--server_address", address, *arguments)
        return start("tests/device.py", *arguments, python=python, env={"FAULTS": json.dumps(faults)})

    return start_device


def copy_sample(data_dir: Path) -> Path:
    """Copy the MNIST sample into a data folder, without what was made from it."""
    (data_dir / "mnist").mkdir(parents=True)
    for path in (ROOT / "sample_data/mnist").glob("*.parquet"):
        shutil.copy(path, data_dir / "mnist")
    return data_dir


@pytest.fixture(scope="session")
def mnist(tmp_path_factory) -> Path:
    """A data folder with the MNIST sample; partitions made by one test serve the next."""
    return copy_sample(tmp_path_factory.mktemp("mnist_data"))


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory) -> Path:
    """A data folder with a made-up CIFAR-10, in the Hub's layout: noise on ten colours, one colour a class."""
    import datasets
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("cifar10_data")
    (folder / "cifar10").mkdir()
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, size=(10, 1, 1, 3))
    for split, size in (("train", 400), ("test", 50)):
        labels = random.permutation(np.arange(size) % 10)
        noise = random.normal(scale=20, size=(size, 32, 32, 3))
        images = (colours[labels] + noise).clip(0, 255).astype(np.uint8)
        rows = {"img": [Image.fromarray(image) for image in images], "label": labels.tolist()}
        features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
        path = folder / "cifar10" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
