"""What tests share: fixtures that start the real scripts, and data."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
from processes import ROOT, Process, Processes, free_address

if sys.version_info < (3, 11):  # there, Flower is too old for flower_app.py
    collect_ignore = [f"unit/test_{name}.py" for name in ("clientapp", "nodes", "serverapp")]

# Where the tests run in the background, the shell has Ctrl-C ignored, and so would all scripts that start here.
signal.signal(signal.SIGINT, signal.default_int_handler)

FRAMEWORKS = ("pytorch", "tf")

# Other versions of Flower than the newest: one from between, and the package sets of the images for Jetsons, with
# Python 3.8. `run_tests.sh --all` installs them; the tests that need them run only then.
FLOWER_1_25 = ROOT / ".venv-flower-1.25/bin/python"
PY38_TF = ROOT / ".venv-py38-tf/bin/python"
PY38_PYTORCH = ROOT / ".venv-py38-pytorch/bin/python"
needs_py38_tf = pytest.mark.needs(PY38_TF)
needs_flower_1_25 = pytest.mark.needs(FLOWER_1_25)
needs_py38_pytorch = pytest.mark.needs(PY38_PYTORCH)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also run what takes minutes or needs root")


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(name): shows that the federation survives this fault (test_readme.py)")
    config.addinivalue_line("markers", "needs(python): runs with --all only, if there is this Python")
    config.addinivalue_line("markers", "long: takes minutes, and starts first")
    config.addinivalue_line("markers", "slow: takes minutes; runs with --all only")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: not item.get_closest_marker("long"))  # so that it does not run alone in the end
    for item in items:
        needed = [mark.args[0] for mark in item.iter_markers("needs")]
        if (needed or item.get_closest_marker("slow")) and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: ./run_tests.sh --all"))
        for python in needed:
            if not python.exists():
                item.add_marker(pytest.mark.skip(reason=f"{python} is missing: is there a Python 3.8?"))


@pytest.fixture
def processes(tmp_path) -> Iterator[Processes]:
    """Starts scripts of the project; what still runs at the end of the test is killed."""
    with Processes(tmp_path) as processes:
        yield processes


@pytest.fixture
def start(processes):
    """Return a function that starts a script of the project."""
    return processes.start


@pytest.fixture
def address() -> str:
    """A free address on this machine."""
    return free_address()


class Variant(NamedTuple):
    """With what start_server and start_device run, if a test does not say something else."""

    server_python: str | Path = sys.executable
    client_python: str | Path = sys.executable
    server_flags: tuple[str, ...] = ()


@pytest.fixture(
    params=[
        pytest.param(Variant(), id=""),
        pytest.param(Variant(server_flags=("--half_precision",)), id="half precision", marks=pytest.mark.slow),
        pytest.param(Variant(client_python=PY38_PYTORCH), id="clients on 1.11", marks=needs_py38_pytorch),
        pytest.param(Variant(server_python=PY38_PYTORCH), id="server on 1.11", marks=needs_py38_pytorch),
    ]
)
def variant(request) -> Variant:
    """The variant of a test; the first one alone without --all."""
    return request.param


@pytest.fixture
def results(tmp_path) -> Path:
    """Where start_server has the server write its results."""
    return tmp_path / "results"


@pytest.fixture
def start_server(start, address, results, variant):
    """Return a function that starts the server on `address` and waits until it listens."""

    def start_server(*arguments, python: str | Path = variant.server_python, **popen_arguments) -> Process:
        folder = () if "--resume" in arguments else ("--results_dir", results)
        arguments = ("--server_address", address, *folder, *variant.server_flags, *arguments)
        server = start("server.py", *arguments, python=python, **popen_arguments)
        server.wait_for(f"clients connect with --server_address={address}")
        return server

    return start_server


@pytest.fixture
def start_device(start, address, variant):
    """Return a function that starts tests/faulty_client.py as client `cid`, with `faults` as described there."""

    def start_device(cid: int, *arguments, python: str | Path = variant.client_python, **faults) -> Process:
        arguments = ("--cid", cid, "--server_address", address, *arguments)
        return start("tests/faulty_client.py", *arguments, python=python, env={"FAULTS": json.dumps(faults)})

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
