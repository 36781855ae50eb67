"""Partition a data set with flwr-datasets, decode its images, draw the shares of the classes.

Everything that imports `datasets` is here: with pandas and pyarrow, it takes 130 MB, which training does not need.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ContextManager, Sequence

from federation.data import partition_file
from federation.data.hub import SOURCES, explained, parquet_files
from federation.data.images import decode_image
from federation.data.partition_file import Examples, check_labels
from federation.data.partitions import Partitioning
from federation.files import drawn

import numpy as np

if TYPE_CHECKING:
    import datasets
    from flwr_datasets.partitioner import Partitioner

SMALLEST = 2  # images in a partition: one to train on, one to validate on
SEED = 42  # FederatedDataset shuffles with this one


def prepare(partitioning: Partitioning, cids: Sequence[int], test: bool = False) -> list[Path]:
    """Make the missing files of the partitions `cids`, and of the test split if `test`; return the paths of all.

    Raises DataError if the data set is damaged or unavailable.
    """
    with _locked(partitioning.test_file.parent):
        missing = [cid for cid in cids if not os.path.lexists(partitioning.file(cid))]
        if missing:
            rows, labels = open_split(partitioning, "train")
            for cid, numbers in zip(missing, rows_of(labels, partitioning, missing)):
                partition_file.write(partitioning.file(cid), _decoded(rows.select(numbers), partitioning, "train"))
        if test and not os.path.lexists(partitioning.test_file):
            rows, _ = open_split(partitioning, "test")
            partition_file.write(partitioning.test_file, _decoded(rows, partitioning, "test"))
    return [*map(partitioning.file, cids), *([partitioning.test_file] if test else [])]


def show(partitioning: Partitioning) -> Path:
    """Draw each client's share of each class, and return the picture's path.

    An uneven partitioning is drawn beside an even one. No image is decoded. Raises DataError as `prepare` does.
    """
    from flwr_datasets.visualization import plot_label_distributions

    _, labels = open_split(partitioning, "train")
    alphas = [None] if partitioning.alpha is None else [None, partitioning.alpha]
    path = partitioning.folder / "partitions.png"
    with drawn(path, width=1.5 + 4.5 * len(alphas), height=4) as figure:
        axes = figure.subplots(1, len(alphas), sharey=True, squeeze=False)[0]
        for alpha, axis in zip(alphas, axes):
            plot_label_distributions(
                partitioner_of(labels, partitioning._replace(alpha=alpha)),
                "label",
                axis=axis,
                title="evenly (IID)" if alpha is None else f"--alpha {alpha:g}",
                cmap="tab10",
                legend=axis is axes[-1],
                legend_kwargs={"title": "class", "loc": "outside center right", "bbox_to_anchor": None},
                plot_kwargs={"xlabel": "client (--cid)", "ylabel": "images", "width": 0.9, "fontsize": 8},
            )
    return path


def rows_of(labels: np.ndarray, partitioning: Partitioning, cids: Sequence[int]) -> list[np.ndarray]:
    """The numbers of the rows in each of the partitions `cids`, from the labels of all rows.

    They are the same with all versions of Python and the packages. Raises DataError if that is impossible.
    """
    partitioner = partitioner_of(labels, partitioning)
    return [np.array(partitioner.load_partition(cid)[:]["row"]) for cid in cids]


def partitioner_of(labels: np.ndarray, partitioning: Partitioning) -> Partitioner:
    """A partitioner of rows with a number, `row`, and a `label`; raises DataError if that is impossible."""
    import datasets
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    num_clients, alpha = partitioning.num_clients, partitioning.alpha
    advice = "" if alpha is None else f"a larger --alpha than {alpha:g}, or "
    failed = f"Cannot partition {len(labels)} images among {num_clients} clients"
    with explained(failed, f"Use {advice}fewer partitions (--num_clients)."), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some partitioners warn at each attempt
        if len(labels) < SMALLEST * num_clients:
            raise ValueError(f"each needs at least {SMALLEST}")
        order = np.random.default_rng(SEED).permutation(len(labels))  # as `datasets` shuffles
        partitioner: Partitioner = IidPartitioner(num_clients)
        if alpha is not None:
            # Versions before 0.6 take the classes in the order of appearance, newer ones sort them first. Their
            # defaults of self_balancing (full partitions get no more images) differ, too.
            order = order[np.argsort(labels[order], kind="stable")]
            partitioner = DirichletPartitioner(num_clients, "label", alpha, SMALLEST, self_balancing=False, seed=SEED)
        features = datasets.Features({"row": datasets.Value("int64"), "label": datasets.ClassLabel(10)})
        partitioner.dataset = datasets.Dataset.from_dict({"row": order, "label": labels[order]}, features)
        partitioner.load_partition(0)  # here, because only this shows whether it is possible
    return partitioner


def open_split(partitioning: Partitioning, split: str) -> tuple[datasets.Dataset, np.ndarray]:
    """The rows of a split, images still encoded, and their labels; raises DataError if they are damaged."""
    import datasets
    import pyarrow
    from pyarrow.parquet import ParquetFile

    files = parquet_files(partitioning.dataset, partitioning.data_dir / partitioning.dataset, split)
    with _blaming(partitioning, split):
        table = pyarrow.concat_tables(ParquetFile(path).read() for path in files)
        labels = np.array(table.column("label").to_pylist(), np.int64)
        check_labels(labels)
        return datasets.Dataset(table, fingerprint="parquet"), labels  # the fingerprint would take seconds to compute


def _decoded(rows: datasets.Dataset, partitioning: Partitioning, split: str) -> Examples:
    import datasets

    _, column, shape = SOURCES[partitioning.dataset]
    with _blaming(partitioning, split):
        rows = rows.cast_column(column, datasets.Image(decode=False))
        images = [decode_image(io.BytesIO(row[column]["bytes"]), shape) for row in rows]
        return Examples(np.stack(images), np.array(rows["label"], np.int64))


def _blaming(partitioning: Partitioning, split: str) -> ContextManager[None]:
    """Blame any error on the files of a split: Arrow, PNG and missing columns raise many kinds."""
    files = partitioning.data_dir / partitioning.dataset / f"{split}-*.parquet"
    return explained(f"Cannot use {files}", "Remove them to download the data set again.")


def _locked(folder: Path) -> ContextManager[object]:
    """Keep other processes out of `folder`: of two clients on one machine, one downloads and the other waits."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    advice = "Use --data_dir with a folder on a local disk, or copy prepared partitions into this one."
    with explained(f"Cannot lock {folder}", advice):  # some network drives have no locks
        return FileLock(folder / ".lock").acquire()
