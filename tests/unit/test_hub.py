"""The parquet files of a data set: one whole set, in order, or a refusal that names what is wrong."""

from __future__ import annotations

from federation.data.hub import DataError, find_files

import pytest


def names(folder, *files: str) -> list[str]:
    for name in files:
        (folder / name).touch()
    return [path.name for path in find_files(folder, "train")]


def test_nothing_there(tmp_path):
    assert names(tmp_path, "test-00000-of-00001.parquet", "train.csv", ".train-00000-of-00001.parquet") == []


def test_one_file_and_several(tmp_path):
    assert names(tmp_path, "train-00000-of-00001.parquet") == ["train-00000-of-00001.parquet"]


def test_several_files_come_by_their_numbers(tmp_path):
    files = [f"train-{i:05}-of-00012.parquet" for i in range(12)]
    assert names(tmp_path, *reversed(files), "test-00000-of-00002.parquet") == files


def test_the_hubs_older_names(tmp_path):
    files = [f"train-0000{i}-of-00002-0123456789abcdef.parquet" for i in range(2)]
    assert names(tmp_path, *files) == files


@pytest.mark.parametrize(
    "copy", ["train-00000-of-00001 (1).parquet", "train-00000-of-00001.parquet.part", "train.parquet"]
)
def test_what_a_browser_leaves_beside_a_whole_set_does_not_count(tmp_path, copy):
    assert names(tmp_path, "train-00000-of-00001.parquet", copy) == ["train-00000-of-00001.parquet"]


@pytest.mark.parametrize("missing", [[0], [1], [2], [0, 2]])
def test_a_part_is_missing(tmp_path, missing):
    files = [f"train-{i:05}-of-00003.parquet" for i in range(3)]
    with pytest.raises(DataError) as caught:
        names(tmp_path, *[name for i, name in enumerate(files) if i not in missing])
    assert f"{tmp_path} lacks {', '.join(files[i] for i in missing)}:" in str(caught.value)


@pytest.mark.parametrize(
    "second",
    ["train-00000-of-00002.parquet", "train-00000-of-00001-0123456789abcdef.parquet", "train-00001-of-00003.parquet"],
)
def test_two_sets(tmp_path, second):
    with pytest.raises(DataError, match="are not of one set"):
        names(tmp_path, "train-00000-of-00001.parquet", second)


@pytest.mark.parametrize(
    "name", ["train.parquet", "train-mine.parquet", "train-00000-of-00001 (1).parquet", "train_0.parquet"]
)
def test_another_name_is_refused_rather_than_passed_over(tmp_path, name):
    with pytest.raises(DataError, match="is not named as the Hub names its files"):
        names(tmp_path, name)
