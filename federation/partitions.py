"""Cut CIFAR-10 or MNIST into partitions and load the one that belongs to a client.

To prepare partitions on a laptop, then copy the folder `data` to devices without internet:

    python -m federation.partitions --cid 0 1 2 --mnist
    python -m federation.partitions --cid 0 1 2 --num_clients 10

The folder holds each data set as the Hugging Face Hub lays it out, and beside it what was cut from it:

    data/mnist/train-00000-of-00001.parquet    found there, or downloaded
    data/mnist/50/7.npz                        partition 7 of 50
    data/mnist/test.npz                        the test split, for the server
"""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NoReturn, Sequence

from federation import partition_file
from federation.flags import ArgumentParser, add_data_dir, check_cid, dataset_name, whole_number
from federation.hub import SOURCES, DataError, Source, find_files, parquet_files
from federation.images import decode_image
from federation.partition_file import Examples

import numpy as np

if TYPE_CHECKING:
    import datasets  # imported where it is used: 130 MB that training does without

NUM_CLIENTS = 50  # default number of partitions, that of the clients


def load_partition(dataset: str, cid: int, num_clients: int, data_dir: Path) -> tuple[Examples, Examples]:
    """Return partition `cid` of `num_clients`: 90 % to train on and 10 % to validate on.

    It is the partition that flwr-datasets' FederatedDataset would give for `num_clients` IID partitions,
    so the same cid means the same images on every device. If its file is not there yet, a process of its
    own makes it. Ends this process, after a message, if that fails.
    """
    path = _partition_file(dataset, cid, num_clients, data_dir)
    images, labels = _load(path, dataset, data_dir, "train", "--cid", str(cid), "--num_clients", str(num_clients))
    num_train = len(labels) - max(1, len(labels) // 10)
    return Examples(images[:num_train], labels[:num_train]), Examples(images[num_train:], labels[num_train:])


def load_test_split(dataset: str, data_dir: Path) -> Examples:
    """Return the test split of the data set, made and kept like a partition."""
    return _load(_test_file(dataset, data_dir), dataset, data_dir, "test", "--test")


def prepare(dataset: str, cids: Sequence[int], num_clients: int, data_dir: Path, test: bool = False) -> None:
    """Make the files of the partitions `cids` of `num_clients`, and the test split's if `test`.

    Only the images of these partitions are decoded; files that are there and whole are kept, and so is somebody's own.
    Raises DataError if the data set is neither in `data_dir` nor to be had from the Hub, or if it is damaged.
    """
    from filelock import FileLock

    folder = data_dir / dataset
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[Path, int | None] = {_partition_file(dataset, cid, num_clients, data_dir): cid for cid in cids}
    if test:
        wanted[_test_file(dataset, data_dir)] = None
    with FileLock(folder / ".lock"):  # two clients on one machine: one downloads, the other finds the files
        splits: dict[str, datasets.Dataset] = {}  # read once for all partitions
        for path, cid in wanted.items():
            split = "test" if cid is None else "train"
            if partition_file.read(path, dataset, _available(folder, split)) is None:
                files = parquet_files(dataset, folder, split)
                if split not in splits:
                    splits[split] = _open(files)
                rows = splits[split] if cid is None else _cut(splits[split], cid, num_clients)
                with _blaming(files):
                    examples = _decode(rows, SOURCES[dataset])
                partition_file.write(path, examples, _described(files))
            print(f"{path} is ready")


def _partition_file(dataset: str, cid: int, num_clients: int, data_dir: Path) -> Path:
    return data_dir / dataset / str(num_clients) / f"{cid}.npz"


def _test_file(dataset: str, data_dir: Path) -> Path:
    return data_dir / dataset / "test.npz"


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
            _make_in_child(dataset, *wanted, "--data_dir", str(data_dir.resolve()))
            examples = partition_file.read(path, dataset, [])
    except DataError as error:
        end(error)
    if examples is None:
        sys.exit(f"{path} cannot be read, although it has just been made")
    return examples


def _make_in_child(dataset: str, *wanted: str) -> None:
    """Run this file in a process of its own, because datasets, pandas and pyarrow never leave a process: 130 MB."""
    command = [sys.executable, "-m", "federation.partitions", *wanted, *(["--mnist"] if dataset == "mnist" else [])]
    code = subprocess.run(command, cwd=Path(__file__).parents[1]).returncode
    if code < 0:  # by the system, for lack of memory, or by a processor that does not know an instruction
        raise DataError(
            f"The process that cuts the partition was ended by {signal.Signals(-code).name}. If this machine has too "
            "little memory for that,\nprepare the partition on another one: python -m federation.partitions --help"
        )
    if code != 0:
        sys.exit(code)


@contextmanager
def _blaming(files: Sequence[Path]) -> Iterator[None]:
    """Turn any error into a DataError that names `files`: Arrow, PNG and missing columns raise errors of their own."""
    try:
        yield
    except Exception as error:
        names, reason = ", ".join(map(str, files)), f"{type(error).__name__}: {error}"
        raise DataError(f"Cannot use {names}: damaged, or another data set? ({reason})") from error


def _open(files: Sequence[Path]) -> datasets.Dataset:
    """Return the examples in `files`, their images still encoded."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    with _blaming(files):
        tables = []
        for path in files:
            with path.open("rb") as file:  # a name would be taken for a pattern or an address
                tables.append(pyarrow.parquet.read_table(file))
        return datasets.Dataset(pyarrow.concat_tables(tables), fingerprint="parquet")  # else it is computed: seconds


def _cut(rows: datasets.Dataset, cid: int, num_clients: int) -> datasets.Dataset:
    """Return partition `cid` of `num_clients` of `rows`."""
    from flwr_datasets.partitioner import IidPartitioner

    if len(rows) < 2 * num_clients:  # one to train on, one to validate on
        raise DataError(f"{len(rows)} images are too few for {num_clients} partitions")
    partitioner = IidPartitioner(num_partitions=num_clients)
    partitioner.dataset = rows.shuffle(seed=42)  # FederatedDataset shuffles with this seed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some partitioners tell of each attempt
            partition = partitioner.load_partition(cid)
        if len(partition) < 2:
            raise ValueError(f"partition {cid} has {len(partition)} images")
        return partition
    except Exception as error:  # a partitioner may not find a solution: DirichletPartitioner gives up at the tenth
        kind = type(partitioner).__name__
        raise DataError(
            f"{kind} cannot cut {len(rows)} images into {num_clients} partitions: {error}\n"
            f"Take fewer partitions (--num_clients) or, in federation/partitions.py, other settings of {kind}."
        ) from error


def _decode(rows: datasets.Dataset, source: Source) -> Examples:
    """Decode the images of `rows`; raises ValueError or Pillow's errors if they are of no use for the model."""
    import datasets

    rows = rows.cast_column(source.image_column, datasets.Image(decode=False))
    images = np.empty((len(rows), *source.image_shape), dtype=np.uint8)
    labels = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        images[i] = decode_image(row[source.image_column]["bytes"], source.image_shape)
        labels[i] = row["label"]
    partition_file.check_labels(labels)
    return Examples(images, labels)


def end(error: DataError) -> NoReturn:
    """End this process with the error's exit code, after its message."""
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)


def main() -> None:
    """Prepare the partitions that the command line asks for."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--cid", type=whole_number(0), nargs="+", default=[], help="the partitions to prepare")
    parser.add_argument(
        "--num_clients", type=whole_number(1), default=NUM_CLIENTS, help="number of partitions (default: %(default)s)"
    )
    parser.add_argument("--test", action="store_true", help="prepare the test split too")
    parser.add_argument("--mnist", action="store_true", help="MNIST (default: CIFAR-10)")
    add_data_dir(parser)
    args = parser.parse_args()
    if not args.cid and not args.test:
        parser.error("nothing to do: give --cid, --test or both")
    for cid in args.cid:
        check_cid(parser, cid, args.num_clients)
    try:
        prepare(dataset_name(args.mnist), args.cid, args.num_clients, args.data_dir, args.test)
    except DataError as error:
        end(error)
    except OSError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
