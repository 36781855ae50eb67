"""Your own photos: a folder for each class becomes a partition, what is no photo is named, mistakes are a sentence."""

from __future__ import annotations

import os
import unicodedata
import warnings
from pathlib import Path

from federation.data.hub import DataError
from federation.data.partition_file import read, read_classes
from federation.data.photos import write_photos

import numpy as np
import pytest
from PIL import Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def take(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with two classes: a red cat and a blue dog."""
    take(tmp_path / "photos/cat/1.png", RED)
    take(tmp_path / "photos/dog/1.png", BLUE)
    return tmp_path / "photos"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data/cifar10/50/7.npz"


def made(path: Path, photos: Path) -> dict[int, list[tuple[int, ...]]]:
    """Make the partition; return the one colour of each of its images, by label."""
    write_photos(path, "cifar10", photos)
    images, labels = read(path, "cifar10")
    assert (images == images[:, :1, :1]).all()
    return {label: [tuple(image[0, 0].tolist()) for image in images[labels == label]] for label in set(labels.tolist())}


def refusal(path: Path, photos: Path) -> str:
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(DataError) as caught:
        write_photos(path, "cifar10", photos)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before
    return str(caught.value)


def test_a_class_for_each_folder_in_the_order_of_their_names(path, photos, capsys):
    take(photos / "ant/in/there/1.bmp", WHITE)
    assert made(path, photos) == {0: [WHITE], 1: [RED], 2: [BLUE]}
    assert read_classes(path) == ["ant", "cat", "dog"]
    assert capsys.readouterr().out == "ant (1), cat (1), dog (1)\n"


def test_names_are_sorted_and_written_alike_on_all_systems(path, photos):
    for name in ("Zebra", "ärger", "10", "9"):
        take(photos / unicodedata.normalize("NFD", name) / "1.png", RED)  # as macOS does
    write_photos(path, "cifar10", photos)
    assert read_classes(path) == ["10", "9", "Zebra", "cat", "dog", unicodedata.normalize("NFC", "ärger")]


def test_what_is_no_photo_is_named_and_skipped(path, photos, capsys):
    broken = {"text.jpg": b"Dear reader", "zero bytes.png": b"", "half.png": (photos / "cat/1.png").read_bytes()[:60]}
    for name, content in broken.items():
        (photos / "cat" / name).write_bytes(content)
    os.mkfifo(photos / "cat/pipe.png")  # reading it would wait for ever
    (photos / "cat/again").symlink_to(photos)
    (photos / "cat/._1.jpg").write_bytes(b"of the system")
    take(photos / "cat/_DSC0001.JPG", WHITE)  # a camera's name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_label = made(path, photos)
    assert by_label == {0: [RED, WHITE], 1: [BLUE]} or by_label == {0: [WHITE, RED], 1: [BLUE]}
    *skipped, last = capsys.readouterr().out.splitlines()
    told = [line.partition(" is skipped: ")[0] for line in skipped]
    assert told == [f"{photos / 'cat' / name}" for name in sorted(broken)]
    assert last == "cat (2), dog (1)"


@pytest.mark.parametrize(
    "name",
    [".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "#recycle", "~snapshot", "System Volume Information", "lost+found"],
)
def test_folders_that_no_user_made_are_no_classes_and_hold_no_pictures(path, photos, name):
    take(photos / name / "1.png", WHITE)
    take(photos / "cat" / name / "1.jpg/SYNOPHOTO_THUMB_M.jpg", WHITE)
    assert made(path, photos) == {0: [RED], 1: [BLUE]}
    assert read_classes(path) == ["cat", "dog"]


@pytest.mark.parametrize("number", [0, 1, 11])
def test_too_few_and_too_many_classes(path, tmp_path, number):
    photos = tmp_path / "mine"
    photos.mkdir()
    for i in range(number):
        take(photos / f"class {i}/1.png", RED)
    sentence = refusal(path, photos)
    assert f"{photos} has {number} class folders (" in sentence and "needs 2 to 10 classes" in sentence


def test_a_class_without_a_picture(path, photos):
    (photos / "cow").mkdir()
    (photos / "cow/1.jpg").write_text("moo")
    assert refusal(path, photos).startswith(f"{photos / 'cow'} has no readable picture: put one there")


def test_no_folder(path, tmp_path):
    assert refusal(path, tmp_path / "photos").startswith(f"{tmp_path / 'photos'} is not a folder: give one")


@pytest.mark.parametrize("kind", ["a partition", "a link"])
def test_what_is_there_is_kept(path, photos, tmp_path, kind):
    path.parent.mkdir(parents=True)
    if kind == "a partition":
        np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.arange(2))
    else:
        path.symlink_to(tmp_path / "stick/mine.npz")
    assert refusal(path, photos) == f"{path} exists already: remove it first, or use another --cid"
