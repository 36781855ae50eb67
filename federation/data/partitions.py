"""Cut CIFAR-10 or MNIST into partitions and load the one that belongs to a client.

To prepare partitions on a laptop, then copy the folder `data` to devices without internet:

    python -m federation.data --cid 0 1 2 --mnist
    python -m federation.data --cid 0 1 2 --num_clients 10 --alpha 0.3

To see who has how much of which class, and to make a partition of own pictures, in a folder for each class:

    python -m federation.data --show --num_clients 10 --alpha 0.3 --mnist
    python -m federation.data --from_folder photos --cid 7

The folder holds each data set as the Hugging Face Hub lays it out, and beside it what was made from it:

    data/mnist/train-00000-of-00001.parquet    found there, or downloaded
    data/mnist/50/7.npz                        partition 7 of 50
    data/mnist/50-alpha0.3/7.npz               another one, of an uneven cut
    data/mnist/test.npz                        the test split, for the server
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Sequence

from federation.data import cutting, partition_file
from federation.data.distribution import draw_distributions
from federation.data.hub import SOURCES, DataError, find_files, parquet_files
from federation.data.partition_file import Examples

import numpy as np

if TYPE_CHECKING:
    import datasets

NUM_CLIENTS = 50  # default number of partitions, that of the clients
MOST_NAMES = 5  # of files that are told


class Partition(NamedTuple):
    """One of the `num_clients` partitions of the data set in `data_dir`: that of client `cid`."""

    dataset: str  # "mnist" or "cifar10"
    cid: int
    num_clients: int
    data_dir: Path
    alpha: float | None = None  # of a Dirichlet distribution; None: cut evenly (IID)

    @property
    def path(self) -> Path:
        """The file that holds it."""
        scheme = f"{self.num_clients}"
        if self.alpha is not None:
            scheme += f"-alpha{np.format_float_positional(self.alpha, trim='-')}"  # no other number looks like that
        return self.data_dir / self.dataset / scheme / f"{self.cid}.npz"


def load_partition(partition: Partition) -> tuple[Examples, Examples]:
    """Return the images of a partition: 90 % to train on and 10 % to validate on.

    The same partition means the same images on every device. If it is cut evenly, they are those that flwr-datasets'
    FederatedDataset would give for `num_clients` IID partitions, else those of its DirichletPartitioner. If the file is
    not there yet, a process of its own makes it. Ends this process, after a message, if that fails.
    """
    dataset, cid, num_clients, data_dir, alpha = partition
    wanted = ["--cid", str(cid), "--num_clients", str(num_clients), *_alpha_flag(alpha)]
    images, labels = _load(partition.path, dataset, data_dir, "train", *wanted)
    num_train = len(labels) - max(1, len(labels) // 10)
    return Examples(images[:num_train], labels[:num_train]), Examples(images[num_train:], labels[num_train:])


def load_test_split(dataset: str, data_dir: Path) -> Examples:
    """Return the test split of the data set, made and kept like a partition."""
    return _load(test_file(dataset, data_dir), dataset, data_dir, "test", "--test")


def test_class_names(dataset: str, data_dir: Path) -> list[str]:
    """Return the names of the classes of the test split by label, the labels themselves if it tells no names."""
    names = partition_file.read_classes(test_file(dataset, data_dir))
    return [*names, *map(str, range(len(names), 10))]


def prepare(
    dataset: str,
    cids: Sequence[int],
    num_clients: int,
    data_dir: Path,
    alpha: float | None = None,
    test: bool = False,
) -> None:
    """Make the files of the partitions `cids` of `num_clients`, and the test split's if `test`.

    Only the images of these partitions are decoded; files that are there and whole are kept, and so is somebody's own.
    Raises DataError if the data set is neither in `data_dir` nor to be had from the Hub, or if it is damaged.
    """
    from filelock import FileLock

    folder = data_dir / dataset
    folder.mkdir(parents=True, exist_ok=True)

    def is_missing(path: Path, split: str) -> bool:
        return partition_file.read(path, dataset, _available(folder, split)) is None

    paths = {cid: Partition(dataset, cid, num_clients, data_dir, alpha).path for cid in cids}
    with FileLock(folder / ".lock"):  # two clients on one machine: one downloads, the other finds the files
        missing = [cid for cid, path in paths.items() if is_missing(path, "train")]
        if missing:
            files = parquet_files(dataset, folder, "train")
            rows, labels = cutting.open_files(files)
            for cid, numbers in zip(missing, cutting.cut(labels, missing, num_clients, alpha)):
                _write(paths[cid], dataset, rows.select(numbers), files)
        for path in [*paths.values()][:MOST_NAMES]:
            print(f"{path} is ready")
        if len(paths) > MOST_NAMES:
            print(f"and so are {len(paths) - MOST_NAMES} more")
        if test:
            path = test_file(dataset, data_dir)
            if is_missing(path, "test"):
                files = parquet_files(dataset, folder, "test")
                _write(path, dataset, cutting.open_files(files)[0], files)
            print(f"{path} is ready")


def prepare_all(dataset: str, num_clients: int, data_dir: Path, alpha: float | None) -> None:
    """Make the files of all partitions, in a process of its own; ends this process, after a message, if that fails."""
    wanted = ["--cid", *map(str, range(num_clients)), "--num_clients", str(num_clients)]
    try:
        _make_in_child(dataset, data_dir, *wanted, *_alpha_flag(alpha))
    except DataError as error:
        end(error)


def show(dataset: str, num_clients: int, data_dir: Path, alpha: float | None) -> Path:
    """Draw who has how much of which class, beside an even cut if it is an uneven one; return the picture's path.

    No image is decoded. Raises DataError as `prepare` does.
    """
    files = parquet_files(dataset, data_dir / dataset, "train")
    rows, labels = cutting.open_files(files)
    cuts = {"cut evenly": None} if alpha is None else {"cut evenly": None, f"--alpha {alpha:g}": alpha}
    counts = {}
    for title, concentration in cuts.items():
        numbers = cutting.cut(labels, range(num_clients), num_clients, concentration)
        with cutting.blaming(files):
            counts[title] = np.stack([np.bincount(labels[each], minlength=10) for each in numbers])
    path = Partition(dataset, 0, num_clients, data_dir, alpha).path.with_name("partitions.png")
    draw_distributions(path, counts, cutting.class_names(rows))
    return path


def test_file(dataset: str, data_dir: Path) -> Path:
    return data_dir / dataset / "test.npz"


def _write(path: Path, dataset: str, rows: datasets.Dataset, files: Sequence[Path]) -> None:
    """Decode rows that are from `files` and write them to `path`."""
    with cutting.blaming(files):
        examples = cutting.decode(rows, SOURCES[dataset])
    partition_file.write(path, examples, _described(files))


def _described(files: Sequence[Path]) -> list[str]:
    """Return what a partition's file says of the data set's files: when they change, it is out of date."""
    return [f"{path.name}, {path.stat().st_size} bytes" for path in files]


def _available(folder: Path, split: str) -> list[str]:
    """Describe the files of a split, none if they cannot be used: what was cut before is good without them."""
    try:
        return _described(find_files(folder, split))
    except (DataError, OSError):  # such as a link to a drive that is not there
        return []


def _load(path: Path, dataset: str, data_dir: Path, split: str, *wanted: str) -> Examples:
    """Read `path`, made first if need be; ends this process, after a message, if that fails."""
    try:
        examples = partition_file.read(path, dataset, _available(data_dir / dataset, split))
        if examples is None:
            _make_in_child(dataset, data_dir, *wanted)
            examples = partition_file.read(path, dataset, [])
    except DataError as error:
        end(error)
    if examples is None:
        sys.exit(f"{path} cannot be read, although it has just been made")
    return examples


def _alpha_flag(alpha: float | None) -> list[str]:
    return [] if alpha is None else ["--alpha", str(alpha)]


def _make_in_child(dataset: str, data_dir: Path, *wanted: str) -> None:
    """Run this file in a process of its own, because datasets, pandas and pyarrow never leave a process: 130 MB."""
    command = [sys.executable, "-m", "federation.data", *wanted, "--data_dir", str(data_dir.resolve())]
    command += ["--mnist"] if dataset == "mnist" else []
    with tempfile.TemporaryDirectory() as folder:
        reason = Path(folder, "reason")
        code = subprocess.run([*command, "--reason", str(reason)], cwd=Path(__file__).parents[2]).returncode
        told = reason.read_text() if reason.exists() else ""
    if code < 0:  # by the system, for lack of memory, or by a processor that does not know an instruction
        raise DataError(
            f"The process that cuts the partition was ended by {signal.Signals(-code).name}. If this machine has too "
            "little memory for that,\nprepare the partition on another one: python -m federation.data --help"
        )
    if code != 0:  # it has said why; whoever is to be told elsewhere finds that in the cause
        raise SystemExit(code) from (DataError(told) if told else None)


def end(error: DataError) -> NoReturn:
    """End this process with the error's exit code, after its message."""
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code) from error
