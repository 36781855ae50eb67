"""The data sets as the Hugging Face Hub lays them out, in parquet files: found in a folder, or downloaded into it."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple

from federation.flags import Failure

HUB_TIMEOUT = 20  # seconds


class Source(NamedTuple):
    """Where a data set comes from and what its images look like."""

    hub_name: str
    image_column: str
    image_shape: tuple[int, int, int]  # height, width, channels


SOURCES = {
    "cifar10": Source("uoft-cs/cifar10", "img", (32, 32, 3)),
    "mnist": Source("ylecun/mnist", "image", (28, 28, 1)),
}


class DataError(Failure):
    """The data is missing or unusable; the message names the file or folder at fault."""


@contextmanager
def explained(failed: str, advice: str, exit_code: int = 1) -> Iterator[None]:
    """Turn any error into a DataError that says what failed, why, and what to do: libraries raise all kinds."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        reason = (getattr(error, "strerror", None) or f"{error}").strip().partition("\n")[0].rstrip(".")
        raise DataError(f"{failed}: {kind}{reason}. {advice}", exit_code) from error


def parquet_files(dataset: str, folder: Path, split: str) -> list[Path]:
    """The files of a split in `folder`, in order; downloaded if there are none.

    Raises DataError if that fails, or if there are not as many files as their names say: the partitions would silently
    have other images.
    """
    pattern = f"{split}-*-of-*.parquet"
    files = sorted(folder.glob(pattern))
    if not files:
        _download(dataset, folder)
        files = sorted(folder.glob(pattern))
    if not all(f"-of-{len(files):05}" in path.name for path in files):
        raise DataError(
            f"{folder} has {', '.join(path.name for path in files)}, which is not one complete data set. Copy the "
            "missing files there, and remove files that do not belong to it."
        )
    return files


def _download(dataset: str, folder: Path) -> None:
    """Download the parquet files of splits that have none yet from the Hub into `folder`."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, snapshot_download

    hub_name = SOURCES[dataset].hub_name
    wanted = [f"*{split}-*.parquet" for split in ("train", "test") if not any(folder.glob(f"{split}-*.parquet"))]
    staging = folder / ".download"  # an interrupted download is continued here
    with explained(
        f"There is no {dataset} in {folder}, and it cannot be downloaded from the Hugging Face Hub",
        "Connect this machine to the internet, or copy the data set's train-*.parquet and test-*.parquet into that "
        "folder, or prepare partitions on another machine: python -m federation.data --help",
    ):
        HfApi(token=False).dataset_info(hub_name, timeout=HUB_TIMEOUT)  # snapshot_download may wait for ever
        print(f"downloading {hub_name} from the Hugging Face Hub into {folder}", file=sys.stderr)
        # No token: the sets are public, and an expired token would be refused.
        snapshot_download(hub_name, repo_type="dataset", allow_patterns=wanted, local_dir=staging, token=False)
        for path in [*staging.rglob("*.parquet")]:  # when all are there: a part alone cannot be used
            path.replace(folder / path.name)
        shutil.rmtree(staging)
