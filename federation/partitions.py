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

import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, NamedTuple, Sequence

from federation.files import replaced
from federation.flags import ArgumentParser, add_data_dir, check_cid, dataset_name, whole_number

import numpy as np

if TYPE_CHECKING:
    import datasets  # imported where it is used: 130 MB that training does without

NUM_CLIENTS = 50  # default number of partitions, that of the clients
HUB_TIMEOUT = 20  # seconds after which a Hub that does not answer counts as out of reach


class Source(NamedTuple):
    """Where a data set comes from and what its images look like."""

    hub_name: str
    image_column: str
    image_shape: tuple[int, int, int]  # height, width, channels


SOURCES = {
    "cifar10": Source("uoft-cs/cifar10", "img", (32, 32, 3)),
    "mnist": Source("ylecun/mnist", "image", (28, 28, 1)),
}


class Examples(NamedTuple):
    """Images and their labels; how many there are is `len(examples.labels)`."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # int64 [n], 0 to 9


class DataError(Exception):
    """The data cannot be had; the message names the file or folder at fault."""


def load_partition(dataset: str, cid: int, num_clients: int, data_dir: Path) -> tuple[Examples, Examples]:
    """Return partition `cid` of `num_clients`: 90 % to train on and 10 % to validate on.

    It is the partition that flwr-datasets' FederatedDataset would give for `num_clients` IID partitions,
    so the same cid means the same images on every device. If its file is not there yet, a process of its
    own makes it. Ends this process, after a message, if that fails.
    """
    path = _partition_file(dataset, cid, num_clients, data_dir)
    images, labels = _load(path, dataset, data_dir, "--cid", str(cid), "--num_clients", str(num_clients))
    num_train = len(labels) - max(1, len(labels) // 10)
    return Examples(images[:num_train], labels[:num_train]), Examples(images[num_train:], labels[num_train:])


def load_test_split(dataset: str, data_dir: Path) -> Examples:
    """Return the test split of the data set, made and kept like a partition."""
    return _load(_test_file(dataset, data_dir), dataset, data_dir, "--test")


def prepare(dataset: str, cids: Sequence[int], num_clients: int, data_dir: Path, test: bool = False) -> None:
    """Make the files of the partitions `cids` of `num_clients`, and the test split's if `test`.

    Only the images of these partitions are decoded; files that are there and whole are kept. Raises
    DataError if the data set is neither in `data_dir` nor to be had from the Hub, or if it is damaged.
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
            if _read(path, dataset) is None:
                split = "test" if cid is None else "train"
                files = _parquet_files(dataset, folder, split)
                if split not in splits:
                    splits[split] = _open(files)
                rows = splits[split] if cid is None else _cut(splits[split], cid, num_clients)
                with _blaming(files):
                    examples = _decode(rows, SOURCES[dataset])
                with replaced(path) as file:
                    np.savez(file, images=examples.images, labels=examples.labels)
            print(f"{path} is ready", flush=True)


def _partition_file(dataset: str, cid: int, num_clients: int, data_dir: Path) -> Path:
    return data_dir / dataset / str(num_clients) / f"{cid}.npz"


def _test_file(dataset: str, data_dir: Path) -> Path:
    return data_dir / dataset / "test.npz"


def _load(path: Path, dataset: str, data_dir: Path, *wanted: str) -> Examples:
    """Read `path`; if that fails, let `python -m federation.partitions` make it first."""
    examples = _read(path, dataset)
    if examples is None:
        # In a process of its own, because datasets, pandas and pyarrow never leave a process: 130 MB.
        command = [sys.executable, "-m", "federation.partitions", *wanted, "--data_dir", str(data_dir.resolve())]
        command += ["--mnist"] if dataset == "mnist" else []
        child = subprocess.run(command, cwd=Path(__file__).parents[1])
        if child.returncode != 0:
            sys.exit(child.returncode)
        examples = _read(path, dataset)
    if examples is None:
        sys.exit(f"{path} cannot be read, although it has just been made")
    return examples


def _read(path: Path, dataset: str) -> Examples | None:
    """Return what is in `path`, or None if it is missing or damaged (the archive has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            examples = Examples(arrays["images"], arrays["labels"])
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        print(f"{path} is damaged ({error}): making it again", file=sys.stderr, flush=True)
        return None
    shape = (len(examples.labels), *SOURCES[dataset].image_shape)
    if examples.images.shape != shape or (examples.images.dtype, examples.labels.dtype) != (np.uint8, np.int64):
        print(f"{path} does not hold {dataset} images: making it again", file=sys.stderr, flush=True)
        return None
    return examples


def _parquet_files(dataset: str, folder: Path, split: str) -> list[str]:
    """Return the files of a split in `folder`, downloaded if there are none."""
    if not any(folder.glob(f"{split}-*.parquet")):
        _download(dataset, folder)
    return sorted(str(path) for path in folder.glob(f"{split}-*.parquet"))


def _download(dataset: str, folder: Path) -> None:
    """Download the parquet files of the data set from the Hugging Face Hub into `folder`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    hub_name = SOURCES[dataset].hub_name
    try:
        names = _within(HUB_TIMEOUT, lambda: _hub_files(hub_name))
        print(f"downloading {hub_name} from the Hugging Face Hub into {folder}", flush=True)
        staging = folder / ".download"  # an interrupted download goes on here
        for name in names:
            hf_hub_download(hub_name, name, repo_type="dataset", local_dir=staging)
            (staging / name).replace(folder / Path(name).name)
        shutil.rmtree(staging)
    except Exception as error:  # whatever the Hub's client raises: no network, no such name, no answer
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"There is no {dataset} in {folder}, and the Hugging Face Hub does not give it ({reason}).\n"
            f"Connect this machine to the internet, or copy the data set's train-*.parquet and test-*.parquet into "
            f"that folder, or prepare partitions on another machine: python -m federation.partitions --help"
        ) from error


def _hub_files(hub_name: str) -> list[str]:
    """Return the names of a data set's parquet files on the Hub."""
    from huggingface_hub import HfApi

    siblings = HfApi().dataset_info(hub_name, timeout=HUB_TIMEOUT).siblings or []
    return [sibling.rfilename for sibling in siblings if sibling.rfilename.endswith(".parquet")]


def _within(seconds: float, task: Callable[[], list[str]]) -> list[str]:
    """Return `task()`; raises TimeoutError after `seconds`: a name server that does not answer can hold it longer."""
    outcome: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(task())
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds} s") from None
    if isinstance(result, Exception):
        raise result
    return result


@contextmanager
def _blaming(files: list[str]) -> Iterator[None]:
    """Turn any error into a DataError that names `files`: Arrow, PNG and missing columns raise errors of their own."""
    try:
        yield
    except Exception as error:
        raise DataError(f"Cannot read {', '.join(files)}: damaged? ({type(error).__name__}: {error})") from error


def _open(files: list[str]) -> datasets.Dataset:
    """Return the examples in `files`, their images still encoded."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache, _blaming(files):
        # In memory, because Windows cannot delete a cache that is still mapped.
        return datasets.Dataset.from_parquet(files, cache_dir=cache, keep_in_memory=True)


def _cut(rows: datasets.Dataset, cid: int, num_clients: int) -> datasets.Dataset:
    """Return partition `cid` of `num_clients` of `rows`."""
    from flwr_datasets.partitioner import IidPartitioner

    if len(rows) < 2 * num_clients:  # one to train on, one to validate on
        raise DataError(f"{len(rows)} images are too few for {num_clients} partitions")
    partitioner = IidPartitioner(num_partitions=num_clients)
    partitioner.dataset = rows.shuffle(seed=42)  # FederatedDataset shuffles with this seed
    return partitioner.load_partition(cid)


def _decode(rows: datasets.Dataset, source: Source) -> Examples:
    """Decode the images of `rows`."""
    images = np.empty((len(rows), *source.image_shape), dtype=np.uint8)
    labels = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        images[i] = np.asarray(row[source.image_column]).reshape(source.image_shape)
        labels[i] = row["label"]
    return Examples(images, labels)


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
    except (DataError, OSError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
