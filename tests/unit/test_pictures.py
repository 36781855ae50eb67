"""Photos in a folder that changes, images of a partition: what there is to look at, and what is left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from federation.data.hub import DataError
from federation.data.pictures import CLASSIFIER, PhotoFolder, pictures_of
from federation.flags import Failure

import numpy as np
import pytest
from test_photos import BLUE, RED, WHITE, take


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes: forty cups, of all reds, and two spoons."""
    for red in range(40):
        take(tmp_path / f"photos/cup/{red}.png", (red * 6, 0, 0))
    for name in ("1.png", "2.jpg"):
        take(tmp_path / "photos/spoon" / name, BLUE)
    return tmp_path / "photos"


def chosen(folder: Path, *told: str) -> PhotoFolder:
    photos = PhotoFolder(folder)
    photos.choose_classes(list(told))
    return photos


def names(examples) -> list[str]:
    return [photo.path.name for photo in examples.images]


def test_every_tenth_photo_validates_by_its_content_alone(folder):
    train, validation = chosen(folder).read()
    assert len(train.labels) + len(validation.labels) == 42 and 1 <= len(validation.labels) <= 12
    assert {*train.labels.tolist(), *validation.labels.tolist()} == {0, 1}
    for path in (folder / "cup").iterdir():
        path.rename(path.with_name(f"{path.stem}-renamed.png"))
    take(folder / "cup/new.png", WHITE)
    again = [name for name in names(chosen(folder).read()[1]) if name != "new.png"]
    assert sorted(again) == sorted(name.replace(".png", "-renamed.png") for name in names(validation))


def test_photos_come_and_go_and_what_is_known_is_not_read_again(folder, monkeypatch):
    photos = chosen(folder)
    before = {photo.path: photo.key for photo in photos.read_all().images}
    (folder / "cup/0.png").unlink()
    take(folder / "cup/1.png", WHITE, size=(90, 10))
    take(folder / "spoon/deeper/3.png", RED)
    read = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), read_bytes(path))[1])
    after = {photo.path: photo.key for photo in photos.read_all().images}
    assert sorted(read) == ["1.png", "3.png"]
    assert before.keys() - after.keys() == {folder / "cup/0.png"}
    assert {path.name for path, key in after.items() if before.get(path) != key} == {"1.png", "3.png"}


def test_the_servers_classes(folder, capsys):
    photos = chosen(folder, "spoon", "nothing", "cup")
    (folder / "nothing").mkdir()
    take(folder / "nothing/1.png", WHITE)
    assert np.bincount(photos.read_all().labels).tolist() == [2, 1, 40]
    take(folder / "dog/1.png", WHITE)
    assert photos.choose_classes(["spoon", "nothing", "cup"]) == ["spoon", "nothing", "cup"]  # it has connected again
    assert photos.choose_classes([]) == ["spoon", "nothing", "cup"]  # to a server that names none
    assert capsys.readouterr().out == "the classes are spoon, nothing, cup\n"
    photos.choose_classes(["cup", "lamp"])  # of another server
    assert capsys.readouterr().out == f"the classes are cup, lamp; not used in {folder}: dog, nothing, spoon\n"
    assert np.bincount(photos.read_all().labels).tolist() == [40]


def test_classes_of_its_own(folder):
    photos = chosen(folder)
    assert photos.classes == ["cup", "spoon"]
    take(folder / "dog/1.png", WHITE)  # its federation has begun without
    assert photos.choose_classes([]) == ["cup", "spoon"] and photos.read_all().labels.max() == 1
    shutil.rmtree(folder / "spoon")
    assert photos.read_all().labels.tolist() == [0] * 40


@pytest.mark.parametrize("number", [0, 1, 101])
def test_too_few_and_too_many_folders(tmp_path, number):
    for i in range(number):
        (tmp_path / f"class {i:03}").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(
        DataError, match=f"{tmp_path} has {number} class folders .*, not 2 to 100: .*--classes"
    ) as error:
        chosen(tmp_path)
    assert error.value.exit_code == 2
    chosen(tmp_path, "cup", "spoon")  # a server may name them


def test_a_hundred_classes(tmp_path):
    for i in range(100):
        take(tmp_path / f"class {i:03}/1.png", RED)
    assert chosen(tmp_path).read_all().labels.tolist() == [*range(100)]


def test_a_test_set_has_what_can_be_decoded(folder):
    (folder / "cup/notes.txt").write_text("Dear reader")
    photos = chosen(folder, "cup", "spoon", "nothing")
    assert np.bincount(photos.read_test_set().labels).tolist() == [40, 2]
    photos.choose_classes(["nothing", "more"])
    with pytest.raises(DataError, match="has no photo of nothing, more to test on"):
        photos.read_test_set()


def test_a_folder_that_is_gone_is_a_sentence(folder):
    photos = chosen(folder)
    shutil.rmtree(folder)
    with pytest.raises(Failure, match=f"cannot read {folder}: No such file or directory"):
        photos.read()


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder: give one"):
        PhotoFolder(tmp_path / "nowhere")


def test_what_cannot_be_read_is_named_once_and_left_out(folder, capsys, monkeypatch):
    (folder / "cup/notes.txt").write_text("Dear reader")
    photos = chosen(folder)
    found = {photo.path.name: photo for photo in photos.read_all().images}
    assert found["notes.txt"].pixels(8) is None
    assert capsys.readouterr().out == f"{folder}/cup/notes.txt is skipped: it is not an image, or of a format that " \
        "Pillow does not know\n"  # fmt: skip

    def denied(path):
        raise PermissionError(13, "Permission denied")

    take(folder / "cup/secret.png", RED)
    monkeypatch.setattr(Path, "read_bytes", denied)
    for _ in range(3):
        assert "secret.png" not in names(photos.read_all())
    assert capsys.readouterr().out == f"{folder}/cup/secret.png is skipped: Permission denied\n"
    monkeypatch.undo()
    os.utime(folder / "cup/secret.png", (1, 1))
    assert "secret.png" in names(photos.read_all())


def test_pixels_are_in_colour_and_of_the_size_that_is_wanted(tmp_path):
    grey, colour = np.full((28, 28, 1), 90, np.uint8), np.full((32, 32, 3), (1, 2, 3), np.uint8)
    for picture, expected in zip(pictures_of([grey, colour]), ([90, 90, 90], [1, 2, 3])):
        assert (picture.pixels(16) == np.array(expected)).all() and picture.pixels(50).shape == (50, 50, 3)
    one, same, other = pictures_of([grey, grey.copy(), grey + 1])
    assert one.key == same.key != other.key
    take(tmp_path / "cup/1.png", RED, size=(400, 300))
    (photo,) = pictures_of(chosen(tmp_path, "cup", "spoon").read_all().images)
    assert (photo.pixels(20) == np.array(RED)).all()


def test_the_classifier_is_kept_beside_the_photos(folder, capsys):
    photos = chosen(folder, "cup", "spoon", "nothing")
    weights = np.zeros((3, 3), np.float32)
    weights[-1, 2] = -np.inf
    capsys.readouterr()
    for _ in range(2):
        photos.keep(weights, server_round=1)
    assert capsys.readouterr().out == (
        "no client has a photo of these classes, so they are never recognised: nothing\n"
    )
    with np.load(folder / CLASSIFIER) as kept:
        assert (kept["weights"] == weights).all() and kept["classes"].tolist() == ["cup", "spoon", "nothing"]
    assert [path.name for path in folder.iterdir() if path.is_file()] == [CLASSIFIER]
    photos.folder = folder / "cup/1.png"  # where nothing can be written
    photos.keep(weights)
    assert f"cannot write {photos.folder / CLASSIFIER}: " in capsys.readouterr().out
