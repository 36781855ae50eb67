"""The data sets as the Hugging Face Hub lays them out, in parquet files: found in a folder, or downloaded into it."""

from __future__ import annotations

import queue
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Callable, NamedTuple

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


class DataError(Exception):
    """The data cannot be had; the message names the file or folder at fault."""

    exit_code = 1


def parquet_files(dataset: str, folder: Path, split: str) -> list[Path]:
    """Return the files of a split in `folder`, downloaded if there are none; raises DataError if it cannot be had."""
    files = find_files(folder, split)
    if not files:
        _download(dataset, folder)
        files = find_files(folder, split)
    return files


def find_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split in `folder`, in order; none if there are none.

    Raises DataError if they are not one whole set: with a part missing, other images would be cut into the partitions,
    and nobody would notice.
    """
    sets: dict[tuple[int, str], dict[int, Path]] = {}  # by number of files and what comes after it, then by file
    others = []
    for path in sorted(folder.glob(f"{split}*.parquet")):
        name = re.fullmatch(rf"{split}-(\d+)-of-(\d+)(-\w+)?\.parquet", path.name)
        if name is None:
            others.append(path)
        else:
            sets.setdefault((int(name[2]), name[3] or ""), {})[int(name[1])] = path
    if others and not sets:
        raise DataError(f"{others[0]} is not named as the Hub names its files: {split}-00000-of-00001.parquet")
    if len(sets) > 1:
        first, second, *_ = (min(files.values()) for files in sets.values())
        raise DataError(f"{first} and {second.name} are not of one set: remove what is not wanted")
    for (total, suffix), files in sets.items():
        missing = [f"{split}-{i:05}-of-{total:05}{suffix}.parquet" for i in range(total) if i not in files]
        if missing:
            raise DataError(
                f"{folder} lacks {', '.join(missing)}: without it, the partitions would have other images.\n"
                f"Copy it there too, or remove the {split}-*.parquet that are there, to have all of them downloaded."
            )
        return [files[i] for i in range(total)]
    return []


def _download(dataset: str, folder: Path) -> None:
    """Download from the Hub into `folder` the parquet files of the splits of which there is nothing yet."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    hub_name = SOURCES[dataset].hub_name
    try:
        names = _within(HUB_TIMEOUT, lambda: _hub_files(hub_name))
        names = [name for name in names if not any(folder.glob(f"{Path(name).name.partition('-')[0]}-*.parquet"))]
        print(f"downloading {hub_name} from the Hugging Face Hub into {folder}")
        staging = folder / ".download"  # an interrupted download goes on here
        for name in names:
            hf_hub_download(hub_name, name, repo_type="dataset", local_dir=staging)
        for name in names:  # when all are there: a part alone is of no use
            (staging / name).replace(folder / Path(name).name)
        shutil.rmtree(staging)
    except Exception as error:  # whatever the Hub's client raises: no network, no such name, no answer
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(
            f"There is no {dataset} in {folder}, and the Hugging Face Hub does not give it ({reason}).\n"
            f"Connect this machine to the internet, or copy the data set's train-*.parquet and test-*.parquet into "
            f"that folder, or prepare partitions on another machine: python -m federation.data --help"
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
