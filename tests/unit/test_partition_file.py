"""Partitions on disk: a file that is there is used or refused, whoever made it, and never replaced."""

from __future__ import annotations

from federation.data.hub import DataError
from federation.data.partition_file import Examples, read, read_classes, write

import numpy as np
import pytest

GREY = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.random.default_rng(0).permutation(20) // 2
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "7.npz"


def test_what_was_written_is_read_in_its_order(path):
    assert read_classes(path) == []  # as for a script that has its images from elsewhere
    write(path, Examples(GREY, LABELS))
    images, labels = read(path, "mnist")
    assert np.array_equal(images, GREY) and np.array_equal(labels, LABELS)
    assert read_classes(path) == []
    write(path, Examples(GREY, LABELS), NAMES)
    assert np.array_equal(read(path, "mnist").images, GREY) and read_classes(path) == NAMES


OWN_FILES = {
    "int32 labels": {"images": GREY, "labels": LABELS.astype("i4")},
    "big-endian labels": {"images": GREY, "labels": LABELS.astype(">i4")},
    "labels in a column": {"labels": LABELS[:, np.newaxis], "images": GREY},
    "no channel axis": {"images": GREY[..., 0], "labels": LABELS},
    "Fortran's order": {"images": np.asfortranarray(GREY), "labels": LABELS},
    "names of classes": {"images": GREY, "labels": LABELS, "classes": np.array(NAMES)},
}


@pytest.mark.parametrize("arrays", OWN_FILES.values(), ids=OWN_FILES.keys())
def test_own_files(path, arrays):
    np.savez_compressed(path, **arrays)
    images, labels = read(path, "mnist")
    assert np.array_equal(images, GREY) and images.dtype == np.uint8
    assert np.array_equal(labels, LABELS) and labels.dtype == np.int64


def test_own_images_sorted_by_class_come_mixed_and_always_in_the_same_order(path):
    """Else the last tenth, which validates, would be a class that is not in what is trained on."""
    labels = np.repeat(np.arange(10), 20)
    images = np.zeros((200, 28, 28), np.uint8) + labels.astype(np.uint8)[:, np.newaxis, np.newaxis]
    np.savez(path, images=images, labels=labels)
    first, second = (read(path, "mnist") for _ in range(2))
    assert first.labels.tolist() == second.labels.tolist() and sorted(first.labels) == labels.tolist()
    assert len(set(first.labels[180:])) >= 5
    assert np.array_equal(first.images[:, 0, 0, 0], first.labels)


UNUSABLE = {
    "labels from 1 to 10": ({"images": GREY, "labels": LABELS + 1}, "its labels go from 1 to 10"),
    "float labels": ({"images": GREY, "labels": LABELS.astype(float)}, "its labels are float64 of shape [20]"),
    "one-hot labels": ({"images": GREY, "labels": np.eye(10, dtype=int)[LABELS]}, "int64 of shape [20, 10]"),
    "labels as objects": ({"images": GREY, "labels": LABELS.astype(object)}, "allow_pickle"),
    "float images": ({"images": GREY / 255, "labels": LABELS}, "its images are float64"),
    "colour images": ({"images": COLOUR, "labels": LABELS}, "[20, 32, 32, 3], but mnist needs uint8 of [n, 28, 28, 1]"),
    "one image": ({"images": GREY[:1], "labels": LABELS[:1]}, "it has 1 images, but needs 2"),
    "other names": ({"x": GREY, "y": LABELS}, "it needs the arrays images and labels, but has x, y"),
}  # fmt: skip


def refusal(path) -> str:
    before = path.read_bytes()
    with pytest.raises(DataError) as caught:
        read(path, "mnist")
    sentence = str(caught.value)
    assert sentence.startswith(f"Cannot use {path}: ") and "Remove it to recreate it" in sentence
    assert "\n" not in sentence and caught.value.exit_code == 2 and path.read_bytes() == before
    return sentence


@pytest.mark.parametrize(("arrays", "words"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_arrays_that_do_not_suit_the_model(path, arrays, words):
    np.savez(path, **arrays)
    assert words in refusal(path)


DAMAGE = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "a flipped bit": lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
    "a text": lambda whole: b"0,1,2\n",
    "a zip of something else": lambda whole: whole.replace(b"images.npy", b"images.txt"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files(path, damage):
    write(path, Examples(GREY, LABELS))
    path.write_bytes(damage(path.read_bytes()))
    refusal(path)


def test_a_link_to_a_drive_that_is_not_there(path, tmp_path):
    path.symlink_to(tmp_path / "stick/mine.npz")
    with pytest.raises(DataError, match=f"Cannot use {path}: No such file or directory. Remove it"):
        read(path, "mnist")
