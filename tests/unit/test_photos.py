"""Own pictures: all kinds become a partition as they look, what is none is named, mistakes are one sentence."""

from __future__ import annotations

import io
import os
import unicodedata
import warnings
import zlib
from pathlib import Path

from federation.data import partition_file
from federation.data.partition_file import Examples, read, read_classes
from federation.data.photos import PicturesError, write_pictures

import numpy as np
import pytest
from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with two classes: a red cat and a blue dog."""
    for name, colour in (("cat", RED), ("dog", BLUE)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), colour).save(tmp_path / "photos" / name / "1.png")
    return tmp_path / "photos"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "data/cifar10/50/7.npz"


def made(path: Path, photos: Path, dataset: str = "cifar10") -> dict[int, list[np.ndarray]]:
    """Make the partition; return its images by label."""
    write_pictures(path, dataset, photos)
    images, labels = read(path, dataset, ["train-00000-of-00001.parquet, 1 bytes"])
    return {label: list(images[labels == label]) for label in sorted(set(labels.tolist()))}


def colour_of(image: np.ndarray) -> tuple[int, ...]:
    """The one colour of an image."""
    assert (image == image[0, 0]).all()
    return tuple(int(value) for value in image[0, 0])


def test_a_class_for_each_folder_in_the_order_of_their_names(path, photos):
    (photos / "ant/in/there").mkdir(parents=True)
    Image.new("RGB", (10, 10), "white").save(photos / "ant/in/there/1.bmp")
    by_label = made(path, photos)
    assert {label: [colour_of(image) for image in images] for label, images in by_label.items()} == {
        0: [(255, 255, 255)], 1: [RED], 2: [BLUE],
    }  # fmt: skip
    assert read_classes(path) == ("ant", "cat", "dog")
    assert by_label[0][0].shape == (32, 32, 3)


def test_names_are_sorted_and_written_alike_on_all_systems(path, photos):
    for name in ("Zebra", "ärger", "10", "9"):
        (photos / unicodedata.normalize("NFD", name)).mkdir()  # as macOS does
        Image.new("RGB", (10, 10)).save(photos / unicodedata.normalize("NFD", name) / "1.png")
    write_pictures(path, "cifar10", photos)
    assert read_classes(path) == ("10", "9", "Zebra", "cat", "dog", unicodedata.normalize("NFC", "ärger"))


def test_two_folders_whose_names_look_the_same(path, photos):
    for form in ("NFC", "NFD"):
        (photos / unicodedata.normalize(form, "ä")).mkdir()
    with pytest.raises(PicturesError, match="two folders whose names look the same"):
        write_pictures(path, "cifar10", photos)


def test_the_same_pictures_give_the_same_file_whatever_the_order_on_the_disk(tmp_path, photos):
    contents = []
    for names in (range(20), reversed(range(20))):
        for i in names:
            Image.new("RGB", (32, 32), (i, 0, 0)).save(photos / f"cat/p{i}.png")
        write_pictures(tmp_path / "7.npz", "cifar10", photos)
        contents.append((tmp_path / "7.npz").read_bytes())
        for i in range(20):
            (photos / f"cat/p{i}.png").unlink()
    assert contents[0] == contents[1]
    labels = read(tmp_path / "7.npz", "cifar10", []).labels.tolist()
    assert sorted(labels) == [0] * 21 + [1] and labels != sorted(labels)


def test_the_middle_of_a_picture_is_scaled(path, photos):
    """Wide: a third on each side goes. High: at the top and the bottom."""
    wide = Image.new("RGB", (300, 100), "white")
    wide.paste(RED, (100, 0, 200, 100))
    wide.save(photos / "cat/1.png")
    high = Image.new("RGB", (64, 640), "white")
    high.paste(BLUE, (0, 288, 64, 352))
    high.save(photos / "dog/1.png")
    by_label = made(path, photos)
    assert colour_of(by_label[0][0][:, 3:-3]) == RED and colour_of(by_label[1][0][3:-3]) == BLUE


def test_small_pictures_are_enlarged_and_large_ones_are_means(path, photos):
    Image.new("RGB", (1, 1), RED).save(photos / "cat/1.png")
    noise = np.random.default_rng(0).integers(0, 256, (1280, 1280), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "dog/1.png")
    by_label = made(path, photos)
    assert colour_of(by_label[0][0]) == RED
    assert np.abs(by_label[1][0].astype(int) - 128).max() < 20  # one pixel of many would be anything


def test_a_photo_of_a_camera_is_decoded_small(path, photos, monkeypatch):
    """12 million pixels, as JPEG: in full size they would take 36 MB and, on a Pi, half a second."""
    Image.new("RGB", (4000, 3000), RED).save(photos / "cat/1.jpg")
    sizes = []
    load = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: sizes.append(self.size) or load(self, mode))
    by_label = made(path, photos)
    assert (500, 375) in sizes
    assert all(np.abs(np.array(colour_of(image)) - RED).max() <= 2 for image in by_label[0])


def gif() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (40, 40), i) for i in (0, 1)]
    for frame in frames:
        frame.putpalette([*RED, *BLUE])
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    return file.getvalue()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(*colours: tuple[int, ...], **info: object) -> Image.Image:
    """Left half with the first colour, right half with the second."""
    image = Image.new("P", (64, 64), 0)
    image.putpalette([value for colour in colours for value in colour])
    image.paste(1, (32, 0, 64, 64))
    image.info.update(info)
    return image


def halves(left: object, right: object, mode: str) -> Image.Image:
    image = Image.new(mode, (64, 64), left)
    image.paste(right, (32, 0, 64, 64))
    return image


def turned() -> bytes:
    """Stored with red at the top and blue at the bottom; to be turned by 90 degrees against the clock."""
    exif = Image.Exif()
    exif[0x0112] = 8
    return saved(halves(RED, BLUE, "RGB").transpose(Image.Transpose.ROTATE_270), "png", exif=exif)


WHITE, BLACK, GREY = (255,) * 3, (0,) * 3, (100,) * 3
KINDS = {  # what is on the left and on the right of each
    "turned": (turned(), RED, BLUE),
    "palette": (saved(palette(RED, BLUE), "png"), RED, BLUE),
    "transparent palette": (saved(palette(RED, BLUE), "png", transparency=0), WHITE, BLUE),
    "grey": (saved(halves(100, 0, "L"), "png"), GREY, BLACK),
    "grey, transparent": (saved(halves((0, 0), (100, 255), "LA"), "png"), WHITE, GREY),
    "colour, transparent": (saved(halves((0, 0, 0, 0), (*RED, 255), "RGBA"), "png"), WHITE, RED),
    "16 bits": (saved(Image.fromarray(np.repeat(np.uint16([[25700, 0]]), 32, 1).repeat(64, 0)), "png"), GREY, BLACK),
    "16 bits in tiff": (saved(Image.fromarray(np.full((9, 9), 25700, np.uint16)), "tiff"), GREY, GREY),
    "printer's colours": (saved(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK"), "tiff"), RED, BLUE),
    "1 bit": (saved(halves(1, 0, "1"), "png"), WHITE, BLACK),
    "animated": (gif(), RED, RED),
    "webp": (saved(halves(RED, BLUE, "RGB"), "webp", lossless=True), RED, BLUE),
    "without an ending": (saved(halves(RED, BLUE, "RGB"), "bmp"), RED, BLUE),
}


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_all_kinds_give_the_pixels_that_they_show(path, photos, kind, dataset, capsys):
    content, left, right = KINDS[kind]
    (photos / "cat/1.png").write_bytes(content)
    ((image,), _) = made(path, photos, dataset).values()
    size = 28 if dataset == "mnist" else 32
    assert image.shape == (size, size, 1 if dataset == "mnist" else 3)
    for half, colour in ((image[:, : size // 2 - 3], left), (image[:, size // 2 + 3 :], right)):
        expected = colour if dataset == "cifar10" else (Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)),)
        assert colour_of(half) == expected
    assert "skipped" not in capsys.readouterr().out


def bomb(side: int) -> bytes:
    """A PNG that claims to have side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


NO_PICTURES = {
    "truncated.jpg": saved(Image.new("RGB", (400, 400), RED), "jpeg")[:800],
    "truncated.png": saved(Image.fromarray(np.random.default_rng(0).integers(0, 9, (99, 99), np.uint8)), "png")[:900],
    "zero bytes.png": b"",
    "text.jpg": b"Dear reader",
    "film.mp4": b"\0\0\0 ftypisom" + bytes(2000),
    "32 bits.tiff": saved(Image.new("F", (9, 9)), "tiff"),
    "bomb.png": bomb(10_000),
    "larger bomb.png": bomb(60_000),
    "notes.txt": b"cats, all of them",
}


def test_what_is_no_picture_is_named_and_left_out(path, photos, capsys):
    for name, content in NO_PICTURES.items():
        (photos / "cat" / name).write_bytes(content)
    (photos / "cat/link.png").symlink_to("nowhere.png")
    os.mkfifo(photos / "cat/pipe.png")  # reading it would wait for ever
    (photos / "cat/again").symlink_to(photos)
    (photos / "cat/.DS_Store").write_bytes(b"hidden")
    (photos / "cat/Thumbs.db").write_bytes(b"Windows")
    (photos / "cat/.hidden").mkdir()
    (photos / ".git").mkdir()
    (photos / "lost.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_label = made(path, photos)
    assert {label: len(images) for label, images in by_label.items()} == {0: 1, 1: 1}
    lines = capsys.readouterr().out.splitlines()
    skipped = [line.partition(" is skipped: ")[0] for line in lines if " is skipped: " in line]
    names = [*NO_PICTURES, "link.png", "pipe.png", "again"]
    assert sorted(skipped) == sorted([*(str(photos / "cat" / name) for name in names), str(photos / "lost.png")])
    assert len(lines) == len(skipped) + 1 and lines[-1] == f"{path} is ready: cat (1), dog (1)"
    assert not any("BytesIO" in line or len(line) > 300 for line in lines)


def fill(photos: Path, number: int) -> None:
    for i in range(number):
        (photos / f"class {i}").mkdir(parents=True)
        Image.new("L", (9, 9)).save(photos / f"class {i}/1.png")


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "has 0 folders: a model needs 2 to 10 classes"), (1, r"has 1 folders \(class 0\)"), (11, "has 11 folders")],
)
def test_too_few_and_too_many_classes(path, tmp_path, number, words):
    fill(tmp_path / "mine", number)
    (tmp_path / "mine").mkdir(exist_ok=True)
    Image.new("L", (9, 9)).save(tmp_path / "mine/1.png")
    with pytest.raises(PicturesError, match=words) as caught:
        write_pictures(path, "cifar10", tmp_path / "mine")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not path.exists()


def test_ten_classes(path, tmp_path):
    fill(tmp_path / "mine", 10)
    assert list(made(path, tmp_path / "mine")) == list(range(10))


@pytest.mark.parametrize("content", ["nothing", "a text"])
def test_a_class_without_a_picture(path, photos, content):
    (photos / "cow").mkdir()
    if content == "a text":
        (photos / "cow/1.jpg").write_text("moo")
    with pytest.raises(PicturesError, match=f"{photos / 'cow'} has no picture that can be read") as caught:
        write_pictures(path, "cifar10", photos)
    assert caught.value.exit_code == 2 and not path.exists()


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_no_folder(path, tmp_path, kind):
    if kind == "a file":
        (tmp_path / "photos").write_text("no folder")
    with pytest.raises(PicturesError, match="is no folder: give one with a folder for each class in it"):
        write_pictures(path, "cifar10", tmp_path / "photos")


def test_somebodys_own_file_is_kept(path, photos):
    path.parent.mkdir(parents=True)
    np.savez(path, images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.arange(2))
    before = path.read_bytes()
    with pytest.raises(PicturesError, match=f"{path} was not made here and stays as it is") as caught:
        write_pictures(path, "cifar10", photos)
    assert caught.value.exit_code == 2 and path.read_bytes() == before


def test_what_was_made_here_is_replaced(path, photos, capsys):
    path.parent.mkdir(parents=True)
    partition_file.write(path, Examples(np.zeros((2, 32, 32, 3), np.uint8), np.arange(2)), ["train.parquet, 7 bytes"])
    assert len(made(path, photos)) == 2
    assert f"{path} was cut from the data set: the pictures take its place" in capsys.readouterr().out
    (photos / "cow").mkdir()
    Image.new("L", (9, 9)).save(photos / "cow/1.png")
    assert len(made(path, photos)) == 3
    path.write_bytes(path.read_bytes()[:500])  # damaged
    assert len(made(path, photos)) == 3
