"""Cut a data set into partitions and decode their images.

What imports `datasets` is here: with pandas and pyarrow, 130 MB that training does without.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence

from federation.data.hub import DataError, Source
from federation.data.images import decode_image
from federation.data.partition_file import Examples, check_labels

import numpy as np

if TYPE_CHECKING:
    import datasets

SMALLEST = 2  # images in a partition: one to train on, one to validate on
SEED = 42  # FederatedDataset shuffles with this one


@contextmanager
def blaming(files: Sequence[Path]) -> Iterator[None]:
    """Turn any error into a DataError that names `files`: Arrow, PNG and missing columns raise errors of their own."""
    try:
        yield
    except Exception as error:
        names, reason = ", ".join(map(str, files)), f"{type(error).__name__}: {error}"
        raise DataError(f"Cannot use {names}: damaged, or another data set? ({reason})") from error


def open_files(files: Sequence[Path]) -> tuple[datasets.Dataset, np.ndarray]:
    """Return the rows in `files`, images still encoded, and their labels; raises DataError if they are damaged."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    with blaming(files):
        tables = []
        for path in files:
            # A name would be taken for a pattern or an address. With a file of Python's, Arrow's threads would call
            # Python, which aborts the process if it ends at that moment.
            with pyarrow.OSFile(os.fsencode(path)) as file:
                tables.append(pyarrow.parquet.read_table(file))
        table = pyarrow.concat_tables(tables)
        rows = datasets.Dataset(table, fingerprint="parquet")  # else it is computed: seconds
        return rows, table.column("label").to_numpy()


def class_names(rows: datasets.Dataset) -> list[str]:
    """Return the names of the classes, by label: the data set's own if it has them, else the labels."""
    names = getattr(rows.features["label"], "names", None)
    return names or [str(label) for label in range(10)]


def cut(labels: np.ndarray, cids: Sequence[int], num_clients: int, alpha: float | None) -> list[np.ndarray]:
    """Return which rows are in each of the partitions `cids` of `num_clients`, from the labels of all rows.

    The same on every Python and with all versions of the packages. Raises DataError if they cannot be cut like that.
    """
    import datasets
    import pyarrow
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    def table(order: np.ndarray) -> datasets.Dataset:
        return datasets.Dataset(pyarrow.table({"row": order, "label": labels[order]}), fingerprint="rows")

    if len(labels) < SMALLEST * num_clients:
        raise DataError(f"{len(labels)} images are too few for {num_clients} partitions")
    order = np.array(table(np.arange(len(labels))).shuffle(seed=SEED)[:]["row"])
    advice = "fewer partitions (--num_clients)"
    if alpha is None:
        partitioner = IidPartitioner(num_partitions=num_clients)
    else:
        advice = f"a larger --alpha than {alpha:g}, or {advice}"
        # Versions before 0.6 take the classes in the order in which they come, newer ones sort them first. And whether
        # full partitions get no more images, is on by default in one and off in the other.
        order = order[np.argsort(labels[order], kind="stable")]
        partitioner = DirichletPartitioner(
            num_partitions=num_clients,
            partition_by="label",
            alpha=alpha,
            min_partition_size=SMALLEST,
            self_balancing=False,
            seed=SEED,
        )
    partitioner.dataset = table(order)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some partitioners tell of each attempt
            found = [np.array(partitioner.load_partition(cid)[:]["row"]) for cid in cids]
        for cid, rows in zip(cids, found):
            if len(rows) < SMALLEST:
                raise ValueError(f"partition {cid} has {len(rows)} images")
        return found
    except Exception as error:  # a partitioner may not find a solution: DirichletPartitioner gives up at the tenth
        kind = type(partitioner).__name__
        raise DataError(
            f"{kind} cannot cut {len(labels)} images into {num_clients} partitions: {error}\nTake {advice}."
        ) from error


def decode(rows: datasets.Dataset, source: Source) -> Examples:
    """Decode the images of `rows`; raises ValueError or Pillow's errors if they are of no use for the model."""
    import datasets

    rows = rows.cast_column(source.image_column, datasets.Image(decode=False))
    images = np.empty((len(rows), *source.image_shape), dtype=np.uint8)
    labels = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        images[i] = decode_image(row[source.image_column]["bytes"], source.image_shape)
        labels[i] = row["label"]
    check_labels(labels)
    return Examples(images, labels)
