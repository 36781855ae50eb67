"""Partition a data set with flwr-datasets, decode its images, draw who has what.

What imports `datasets` is here: with pandas and pyarrow, 130 MB that training does without.
"""

from __future__ import annotations

import io
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ContextManager, Iterator, Sequence

from federation.data import partition_file
from federation.data.hub import SOURCES, explained, parquet_files
from federation.data.images import decode_image
from federation.data.partition_file import Examples, check_labels
from federation.data.partitions import Partitioning
from federation.files import replaced

import numpy as np

if TYPE_CHECKING:
    import datasets
    from flwr_datasets.partitioner import Partitioner

SMALLEST = 2  # images in a partition: one to train on, one to validate on
SEED = 42  # FederatedDataset shuffles with this one


def prepare(partitioning: Partitioning, cids: Sequence[int], test: bool = False) -> list[Path]:
    """Make the missing files of the partitions `cids`, and of the test split if `test`; the paths of all of them.

    Raises DataError if a file that is there cannot be used, and if the data set is damaged or cannot be had.
    """
    with _locked(partitioning.test_file.parent):
        missing = [cid for cid in cids if _is_missing(partitioning.file(cid), partitioning.dataset)]
        if missing:
            rows, labels = open_split(partitioning, "train")
            for cid, numbers in zip(missing, rows_of(labels, partitioning, missing)):
                _write(partitioning.file(cid), partitioning, "train", rows.select(numbers))
        if test and _is_missing(partitioning.test_file, partitioning.dataset):
            _write(partitioning.test_file, partitioning, "test", open_split(partitioning, "test")[0])
    return [*map(partitioning.file, cids), *([partitioning.test_file] if test else [])]


def show(partitioning: Partitioning) -> Path:
    """Draw who has how much of which class, beside an even partitioning if it is an uneven one; the picture's path.

    No image is decoded. Raises DataError as `prepare` does.
    """
    from flwr_datasets.visualization import plot_label_distributions
    from matplotlib.figure import Figure

    rows, labels = open_split(partitioning, "train")
    alphas = [None] if partitioning.alpha is None else [None, partitioning.alpha]
    figure = Figure(figsize=(1.5 + 4.5 * len(alphas), 4), layout="constrained")
    axes = figure.subplots(1, len(alphas), sharey=True, squeeze=False)[0]
    for alpha, axis in zip(alphas, axes):
        shown = partitioning._replace(alpha=alpha)
        with partitioner_of(labels, shown, rows.features["label"]) as partitioner:
            plot_label_distributions(
                partitioner,
                "label",
                axis=axis,
                title="evenly (IID)" if alpha is None else f"--alpha {alpha:g}",
                cmap="tab10",
                legend=axis is axes[-1],
                legend_kwargs={"title": "class", "loc": "outside center right", "bbox_to_anchor": None},
                plot_kwargs={"xlabel": "client (--cid)", "ylabel": "images", "width": 0.9, "fontsize": 8},
            )
    path = partitioning.folder / "partitions.png"
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=100)
    return path


def rows_of(labels: np.ndarray, partitioning: Partitioning, cids: Sequence[int]) -> list[np.ndarray]:
    """The numbers of the rows in each of the partitions `cids`, from the labels of all rows.

    The same on every Python and with all versions of the packages. Raises DataError if they cannot be partitioned so.
    """
    with partitioner_of(labels, partitioning) as partitioner:
        return [np.array(partitioner.load_partition(cid)[:]["row"]) for cid in cids]


@contextmanager
def partitioner_of(
    labels: np.ndarray, partitioning: Partitioning, label_feature: object = None
) -> Iterator[Partitioner]:
    """Give a partitioner of rows with a number, `row`, and a `label`; its errors become DataErrors with advice."""
    num_clients, alpha = partitioning.num_clients, partitioning.alpha
    advice = "" if alpha is None else f"a larger --alpha than {alpha:g}, or "
    failed = f"Cannot partition {len(labels)} images among {num_clients} clients"
    with explained(failed, f"Take {advice}fewer partitions (--num_clients)."), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some partitioners tell of each attempt
        if len(labels) < SMALLEST * num_clients:
            raise ValueError(f"each needs {SMALLEST}")
        yield _make_partitioner(labels, num_clients, alpha, label_feature)


def _make_partitioner(labels: np.ndarray, num_clients: int, alpha: float | None, label_feature: object) -> Partitioner:
    import datasets
    import pyarrow
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    features = datasets.Features({"row": datasets.Value("int64"), "label": label_feature or datasets.Value("int64")})

    def rows(order: np.ndarray) -> datasets.Dataset:
        table = pyarrow.table({"row": order, "label": labels[order]}, schema=features.arrow_schema)
        return datasets.Dataset(table, fingerprint="rows")

    order = np.array(rows(np.arange(len(labels))).shuffle(seed=SEED)[:]["row"])
    partitioner: Partitioner = IidPartitioner(num_clients)
    if alpha is not None:
        # Versions before 0.6 take the classes in the order in which they come, newer ones sort them first. And whether
        # full partitions get no more images, is on by default in one and off in the other.
        order = order[np.argsort(labels[order], kind="stable")]
        partitioner = DirichletPartitioner(num_clients, "label", alpha, SMALLEST, self_balancing=False, seed=SEED)
    partitioner.dataset = rows(order)
    return partitioner


def open_split(partitioning: Partitioning, split: str) -> tuple[datasets.Dataset, np.ndarray]:
    """The rows of a split, images still encoded, and their labels; raises DataError if they are damaged."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    files = parquet_files(partitioning.dataset, partitioning.data_dir / partitioning.dataset, split)
    with _blaming(partitioning, split):
        tables = []
        for path in files:
            # A name would be taken for a pattern or an address. With a file of Python's, Arrow's threads would call
            # Python, which aborts the process if it ends at that moment.
            with pyarrow.OSFile(os.fsencode(path)) as file:
                tables.append(pyarrow.parquet.read_table(file))
        table = pyarrow.concat_tables(tables)
        labels = np.array(table.column("label").to_pylist(), np.int64)
        check_labels(labels)
        return datasets.Dataset(table, fingerprint="parquet"), labels  # the fingerprint would take seconds to compute


def _is_missing(path: Path, dataset: str) -> bool:
    """Whether a file has to be made; raises DataError if it is there and cannot be used."""
    if partition_file.exists(path):
        partition_file.read(path, dataset)
        return False
    return True


def _write(path: Path, partitioning: Partitioning, split: str, rows: datasets.Dataset) -> None:
    """Decode the images of `rows` and write them to `path`."""
    import datasets

    _, column, shape = SOURCES[partitioning.dataset]
    with _blaming(partitioning, split):
        rows = rows.cast_column(column, datasets.Image(decode=False))
        images = np.stack([decode_image(io.BytesIO(row[column]["bytes"]), shape) for row in rows])
        partition_file.write(path, Examples(images, np.array(rows["label"], np.int64)))


def _blaming(partitioning: Partitioning, split: str) -> ContextManager[None]:
    """Blame any error on the files of a split: Arrow, PNG and missing columns raise errors of their own."""
    files = partitioning.data_dir / partitioning.dataset / f"{split}-*.parquet"
    return explained(f"Cannot use {files}", "Remove them to have the data set downloaded again.")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`: of two clients on one machine, one downloads and the other waits."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    advice = "Give a folder on a disk of this machine with --data_dir, or copy prepared partitions into this one."
    with explained(f"Cannot lock {folder}", advice):  # some network drives have no locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
