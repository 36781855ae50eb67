"""Partitions on disk: what is made here can be made again; somebody's own is used or refused, never replaced."""

from __future__ import annotations

from federation.data import partition_file
from federation.data.hub import DataError
from federation.data.partition_file import Examples, OwnFileError, mark_of, read, read_classes, write

import numpy as np
import pytest

GREY = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(20) // 2  # sorted, as they come from folders
NAMES = "ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"
FILES = ["train-00000-of-00001.parquet, 12 bytes"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "7.npz"


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


def test_what_was_written_is_read_in_its_order(path):
    write(path, Examples(GREY, LABELS), FILES)
    for available in (FILES, []):  # on the laptop, and on a device that has no more than this file
        images, labels = read(path, "mnist", available)
        assert np.array_equal(images, GREY) and np.array_equal(labels, LABELS)


def test_nothing_there(path):
    assert read(path, "mnist", FILES) is None


def test_out_of_date(path, capsys):
    write(path, Examples(GREY, LABELS), FILES)
    assert read(path, "mnist", ["train-00000-of-00001.parquet, 13 bytes"]) is None
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:3000], lambda content: b"", lambda c: bytes(len(c)), lambda c: c[:999] + c[1000:]],
)
def test_damaged(path, damage, capsys):
    write(path, Examples(GREY, LABELS), FILES)
    path.write_bytes(damage(path.read_bytes()))
    assert read(path, "mnist", FILES) is None
    assert f"{path} is damaged" in capsys.readouterr().err


OWN_LABELS = {
    **{f"{kind}": LABELS.astype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u2")},
    "in a column": LABELS[:, np.newaxis],
    "in a column of int32": LABELS[:, np.newaxis].astype(np.int32),
    "every other one of an array": np.repeat(LABELS, 2)[::2],
}


@pytest.mark.parametrize("labels", OWN_LABELS.values(), ids=OWN_LABELS.keys())
def test_own_labels_of_any_integer_type(path, labels):
    np.savez(path, images=GREY, labels=labels)
    images, found = read(path, "mnist", FILES)
    assert found.dtype == np.int64 and found.shape == (20,)
    assert pairs(images, found) == pairs(GREY, LABELS)


OWN_IMAGES = {
    "mnist": GREY,
    "mnist without the channel axis": GREY[..., 0],
    "mnist in Fortran's order": np.asfortranarray(GREY),
    "cifar10": COLOUR,
    "mnist, two images": GREY[:2],
}


@pytest.mark.parametrize("kind", OWN_IMAGES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_own_images(path, kind, save):
    images = OWN_IMAGES[kind]
    save(path, labels=LABELS[: len(images)], images=images)
    found, labels = read(path, kind.split()[0].rstrip(","), FILES)
    assert found.dtype == np.uint8 and found.ndim == 4
    assert pairs(found, labels) == pairs(images, LABELS)


def test_own_images_sorted_by_class_come_mixed_and_always_in_the_same_order(path):
    """Else the last tenth, which validates, would be a class that is not in what is trained on."""
    labels = np.repeat(np.arange(10), 20)
    np.savez(path, images=np.zeros((200, 28, 28), np.uint8), labels=labels)
    orders = [read(path, "mnist", []).labels.tolist() for _ in range(2)]
    assert orders[0] == orders[1]
    assert len(set(orders[0][180:])) >= 5
    assert sorted(orders[0]) == labels.tolist()


NO_USE = {
    "labels from 1 to 10": ({"images": GREY, "labels": LABELS + 1}, "its labels go from 1 to 10"),
    "a label of -1": ({"images": GREY, "labels": LABELS - 1}, "its labels go from -1 to 8"),
    "labels of 255": ({"images": GREY, "labels": np.full(20, 255, np.uint8)}, "its labels go from 255 to 255"),
    "float labels": ({"images": GREY, "labels": LABELS.astype(float)}, "its labels are float64 of shape [20]"),
    "one-hot labels": ({"images": GREY, "labels": np.eye(10, dtype=int)[LABELS]}, "int64 of shape [20, 10]"),
    "boolean labels": ({"images": GREY, "labels": LABELS > 3}, "its labels are bool"),
    "labels as text": ({"images": GREY, "labels": LABELS.astype(str)}, "its labels are <U"),
    "labels as objects": ({"images": GREY, "labels": LABELS.astype(object)}, "allow_pickle"),
    "one label": ({"images": GREY, "labels": np.array(3)}, "its labels are int64 of shape []"),
    "fewer labels": ({"images": GREY, "labels": LABELS[:5]}, "its labels are int64 of shape [5], and 20 images"),
    "float images": ({"images": GREY / 255, "labels": LABELS}, "its images are float64"),
    "signed images": ({"images": GREY.astype(np.int8), "labels": LABELS}, "its images are int8"),
    "larger images": ({"images": np.zeros((20, 64, 64, 1), np.uint8), "labels": LABELS}, "[20, 64, 64, 1]"),
    "colour images": ({"images": COLOUR, "labels": LABELS}, "[20, 32, 32, 3], and mnist needs uint8 of"),
    "channels first": ({"images": GREY.transpose(0, 3, 1, 2), "labels": LABELS}, "[20, 1, 28, 28]"),
    "flat images": ({"images": GREY.reshape(20, -1), "labels": LABELS}, "[20, 784]"),
    "one image": ({"images": GREY[:1], "labels": LABELS[:1]}, "it has 1 images, and needs 2"),
    "no image": ({"images": GREY[:0], "labels": LABELS[:0]}, "it has 0 images"),
    "a number": ({"images": np.uint8(3), "labels": LABELS}, "its images are uint8 of shape []"),
    "too few names": ({"images": GREY, "labels": LABELS, "classes": np.array(["a"])}, "its classes are ['a'], and"),
    "numbers of classes": ({"images": GREY, "labels": LABELS, "classes": np.arange(10)}, "its classes are [0, 1, 2"),
    "one name": ({"images": GREY, "labels": LABELS, "classes": np.array("a")}, "its classes are a, and labels up to 9"),
    "other names": ({"x": GREY, "y": LABELS}, "it has no array called images, only x, y"),
    "no labels": ({"images": GREY}, "it has no array called labels, only images"),
    "nothing": ({}, "it has no array called images, only nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "words"), NO_USE.values(), ids=NO_USE.keys())
def test_own_files_of_no_use(path, arrays, words):
    np.savez(path, **arrays)
    content = path.read_bytes()
    with pytest.raises(OwnFileError) as caught:
        read(path, "mnist", FILES)
    assert str(path) in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", ["text", "npy", "half", "a flipped byte", "zip of something else"])
def test_own_files_that_are_no_archive_of_arrays(path, content):
    np.savez(path, images=GREY, labels=LABELS)
    whole = path.read_bytes()
    if content == "text":
        path.write_text("0,1,2\n")
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, GREY)
    elif content == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "a flipped byte":
        path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    else:
        path.write_bytes(whole.replace(b"images.npy", b"images.txt"))
    before = path.read_bytes()
    with pytest.raises(OwnFileError) as caught:
        read(path, "mnist", FILES)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_link_to_a_file_that_is_not_there(path, tmp_path):
    """For instance on a memory stick that is not plugged in: nothing to be replaced by other images."""
    path.symlink_to(tmp_path / "stick/mine.npz")
    with pytest.raises(DataError, match="is a link to a file that is not there"):
        read(path, "mnist", FILES)


def test_a_folder_in_its_place(path):
    path.mkdir()
    with pytest.raises(DataError, match=f"cannot read {path}"):
        read(path, "mnist", FILES)


def test_the_mark_comes_first(path, tmp_path):
    """A file of which only the beginning is whole can still be told from somebody's own."""
    write(path, Examples(GREY, LABELS), FILES)
    with np.load(path) as arrays:
        assert arrays.files[0] == partition_file.CUT
    partition_file.write_pictures(path, Examples(GREY, LABELS), tmp_path / "photos", NAMES)
    with np.load(path) as arrays:
        assert arrays.files[0] == partition_file.PICTURES


def test_pictures_are_read_mixed_with_their_classes_and_never_out_of_date(path, tmp_path, capsys):
    partition_file.write_pictures(path, Examples(GREY, LABELS), tmp_path / "photos", NAMES)
    assert mark_of(path) == partition_file.PICTURES
    images, labels = read(path, "mnist", FILES)
    assert pairs(images, labels) == pairs(GREY, LABELS) and labels.tolist() != LABELS.tolist()
    assert [read(path, "mnist", []).labels.tolist() for _ in range(2)] == [labels.tolist()] * 2
    assert read_classes(path) == NAMES
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:3000], "made from pictures"),
        (lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:], "made from pictures"),
        (lambda content: content[:-40] + bytes(40), "made from pictures"),
        (lambda content: content[:60] + bytes(len(content) - 60), "made from pictures"),
        (lambda content: bytes(60) + content[60:], "was not made here"),  # nobody can tell
    ],
)
def test_damaged_pictures_are_not_cut_from_the_data_set(path, tmp_path, damage, words):
    partition_file.write_pictures(path, Examples(GREY, LABELS), tmp_path / "photos", NAMES)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(OwnFileError, match=words) as caught:
        read(path, "mnist", FILES)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2
    assert "--from_folder" in str(caught.value) or words == "was not made here"
    assert path.read_bytes() == before


def test_pictures_for_another_model(path, tmp_path):
    partition_file.write_pictures(path, Examples(COLOUR, LABELS), tmp_path / "photos", NAMES)
    with pytest.raises(OwnFileError, match="mnist needs uint8 of shape"):
        read(path, "mnist", [])


@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_of_what_is_empty_nobody_knows_whether_it_was_made_from_pictures(path, capsys, content):
    path.write_bytes(content)
    assert mark_of(path) is None
    assert read(path, "mnist", FILES) is None
    assert "--from_folder" in capsys.readouterr().err


def test_no_classes_but_the_data_sets(path):
    assert read_classes(path) == ()
    write(path, Examples(GREY, LABELS), FILES)
    assert read_classes(path) == () and mark_of(path) == partition_file.CUT


def test_own_files_may_name_their_classes(path):
    np.savez(path, images=GREY, labels=LABELS, classes=np.array(NAMES))
    assert mark_of(path) == "" and read_classes(path) == NAMES
    assert len(read(path, "mnist", FILES).labels) == 20
