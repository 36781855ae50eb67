"""The parquet files of a data set: one whole set, in order, or a refusal that names what is wrong."""

from __future__ import annotations

from federation.data.hub import DataError, parquet_files

import pytest


def names(folder, *files: str) -> list[str]:
    for name in files:
        (folder / name).touch()
    return [path.name for path in parquet_files("mnist", folder, "train")]


@pytest.mark.parametrize("suffix", ["", "-0123456789abcdef"])  # the Hub's older names
@pytest.mark.parametrize("number", [1, 12])
def test_a_whole_set_comes_by_its_numbers(tmp_path, number, suffix):
    files = [f"train-{i:05}-of-{number:05}{suffix}.parquet" for i in range(number)]
    assert names(tmp_path, *reversed(files), "test-00000-of-00002.parquet", "train.parquet.part") == files


@pytest.mark.parametrize(
    "files",
    [
        ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
        ["train-00000-of-00001.parquet", "train-00000-of-00001 (1).parquet"],
        ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"],
    ],
)
def test_what_is_not_one_whole_set_is_named(tmp_path, files):
    with pytest.raises(DataError, match="which is not one complete data set. Copy the missing files") as caught:
        names(tmp_path, *files)
    assert str(caught.value).startswith(f"{tmp_path} has ") and all(name in str(caught.value) for name in files)
