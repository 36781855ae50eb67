"""The partitions of a data set, one for each client: where they are, and what is in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from federation.data import partition_file
from federation.data.hub import DataError
from federation.data.partition_file import Examples

import numpy as np

NUM_CLIENTS = 50  # default number of partitions, as in the clients


class Partitioning(NamedTuple):
    """How the data set in `data_dir` is divided among the clients."""

    dataset: str  # "mnist" or "cifar10"; "photos", if a client has a folder of its own
    data_dir: Path
    num_clients: int = NUM_CLIENTS
    alpha: float | None = None  # of a Dirichlet distribution; None: evenly (IID)

    @property
    def folder(self) -> Path:
        """Where the files of the partitions are."""
        name = f"{self.num_clients}"
        if self.alpha is not None:
            name += f"-alpha{np.format_float_positional(self.alpha, trim='-')}"  # different for each number
        return self.data_dir / self.dataset / name

    @property
    def test_file(self) -> Path:
        """The file of the data set's test split, the same for all partitionings."""
        return self.data_dir / self.dataset / "test.npz"

    def file(self, cid: int) -> Path:
        """The file of the partition of client `cid`."""
        return self.folder / f"{cid}.npz"


def load_partition(partitioning: Partitioning, cid: int) -> tuple[Examples, Examples]:
    """Load the images of client `cid`: 90 % to train on and 10 % to validate on.

    A partition has the same images on every device. If alpha is None, they are those that flwr-datasets'
    FederatedDataset gives for `num_clients` IID partitions, else those of its DirichletPartitioner. If there is no
    file yet, a separate process makes it. Raises DataError if that fails, or if the file cannot be used.
    """
    images, labels = _load(partitioning.file(cid), partitioning, "--cid", f"{cid}")
    num_train = len(labels) - max(1, len(labels) // 10)
    return Examples(images[:num_train], labels[:num_train]), Examples(images[num_train:], labels[num_train:])


def load_test_split(dataset: str, data_dir: Path) -> Examples:
    """Load the test split of the data set, made and kept like a partition; raises DataError as `load_partition`."""
    partitioning = Partitioning(dataset, data_dir)
    return _load(partitioning.test_file, partitioning, "--test")


def test_class_names(dataset: str, data_dir: Path) -> list[str]:
    """The names of the classes of the loaded test split, by label; the labels themselves where it has no names."""
    names = partition_file.read_classes(Partitioning(dataset, data_dir).test_file)
    return [*names, *map(str, range(len(names), 10))]


def prepare_all(partitioning: Partitioning) -> None:
    """Make the missing files of all partitions, in a separate process; raises DataError if that fails."""
    _make_in_child(partitioning, "--cid", *map(str, range(partitioning.num_clients)))
    print(f"{partitioning.folder} has {partitioning.num_clients} partitions")


def _load(path: Path, partitioning: Partitioning, *wanted: str) -> Examples:
    if not os.path.lexists(path):  # do not replace a link to a drive that is not plugged in
        _make_in_child(partitioning, *wanted)
        print(f"{path} is ready")
    return partition_file.read(path, partitioning.dataset)


def _make_in_child(partitioning: Partitioning, *wanted: str) -> None:
    """Make files in a separate process, because datasets, pandas and pyarrow never leave its memory: 130 MB."""
    dataset, data_dir, num_clients, alpha = partitioning
    command = [sys.executable, "-m", "federation.data", *wanted, "--num_clients", f"{num_clients}"]
    command += ["--data_dir", f"{data_dir.resolve()}", *(["--mnist"] if dataset == "mnist" else [])]
    command += [] if alpha is None else ["--alpha", f"{alpha}"]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)  # stderr: for the user
    if child.returncode < 0:  # by the system: out of memory, or an instruction the processor does not have
        raise DataError(
            f"The process that prepares the partition was ended by {signal.Signals(-child.returncode).name}. If this "
            "machine has too little memory, prepare it on another one: python -m federation.data --help"
        )
    if child.returncode > 0:
        raise DataError("Cannot prepare the data: the reason is above, or in the SuperNode's log", child.returncode)
