"""Image files become the pixels that a viewer shows, whatever their kind; what cannot be shown is refused."""

from __future__ import annotations

import io

from federation.data.images import decode_image

import numpy as np
import pytest
from PIL import Image

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17  # 0 to 255
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(file: bytes) -> list[list[int]]:
    return decode_image(file, (4, 4, 1))[:, :, 0].tolist()


def colour(file: bytes) -> np.ndarray:
    return decode_image(file, (4, 4, 3))


def palette(transparent: bool) -> Image.Image:
    """An image with index 0 on the left and index 1 on the right: red, perhaps transparent, and blue."""
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 0, 1, 1] * 4)
    if transparent:
        image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("png", "tiff", "webp") for mode in ("L", "LA", "RGB", "RGBA", "P")]
    + [(kind, mode) for kind in ("bmp", "gif") for mode in ("L", "RGB", "P")],
)
def test_grey_in_all_its_ways(kind, mode):
    options = {"lossless": True} if kind == "webp" else {}
    assert grey(encoded(Image.fromarray(GREY).convert(mode), kind, **options)) == GREY.tolist()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_one_bit(kind):
    image = Image.fromarray(GREY >= 128)
    assert image.mode == "1"
    assert grey(encoded(image, kind)) == np.where(GREY >= 128, 255, 0).tolist()
    assert np.array_equal(colour(encoded(image, kind))[:, :, 1], np.where(GREY >= 128, 255, 0))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits(kind):
    sixteen = GREY.astype(np.uint16) * 257  # 0 to 65535
    assert grey(encoded(Image.fromarray(sixteen), kind)) == GREY.tolist()
    assert np.array_equal(colour(encoded(Image.fromarray(sixteen), kind))[:, :, 2], GREY)


def test_sixteen_bits_of_a_dark_image_stay_dark():
    assert grey(encoded(Image.fromarray(np.full((4, 4), 200, np.uint16)))) == [[0] * 4] * 4


def test_palette():
    expected = np.array([[[255, 0, 0]] * 2 + [[0, 0, 255]] * 2] * 4)
    assert np.array_equal(colour(encoded(palette(transparent=False))), expected)


def test_what_is_transparent_is_white():
    """The colours that such pixels have all the same, often black, are not to be seen."""
    expected = np.array([[[255, 255, 255]] * 2 + [[0, 0, 255]] * 2] * 4)
    assert np.array_equal(colour(encoded(palette(transparent=True))), expected)
    alpha = np.array([[0, 0, 255, 255]] * 4, np.uint8)
    rgba = np.dstack([np.full((4, 4), 10, np.uint8)] * 3 + [alpha])
    assert grey(encoded(Image.fromarray(rgba))) == [[255, 255, 10, 10]] * 4
    assert grey(encoded(Image.fromarray(rgba).convert("LA"))) == [[255, 255, 10, 10]] * 4
    keyed = encoded(Image.fromarray(COLOUR), transparency=tuple(map(int, COLOUR[1, 2])))
    expected = COLOUR.copy()
    expected[1, 2] = 255
    assert np.array_equal(colour(keyed), expected)


def test_half_transparent_is_half_way_to_white():
    rgba = np.full((4, 4, 4), 128, np.uint8)
    assert np.abs(colour(encoded(Image.fromarray(rgba))).astype(int) - 191).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_upright_as_the_camera_says(orientation, kind):
    """EXIF's eight orientations: how the stored image is to be turned and mirrored."""
    turns = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: np.rot90,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(colour(encoded(Image.fromarray(COLOUR), kind, exif=exif)), turns[orientation](COLOUR))


def test_printers_colours():
    cmyk = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert np.array_equal(colour(encoded(cmyk, "tiff")), np.array([[[255, 0, 0]] * 4] * 4))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (encoded(Image.new("L", (5, 4))), "5 x 4 pixels, not 4 x 4"),
        (encoded(Image.new("F", (4, 4)), "tiff"), "32 bits a pixel"),
        (encoded(Image.new("I", (4, 4)), "tiff"), "32 bits a pixel"),
        (b"no image", "cannot identify image file"),
        (encoded(Image.fromarray(COLOUR))[:60], "truncated|broken|identify"),
    ],
)
def test_what_cannot_be_shown(file, words):
    with pytest.raises((ValueError, OSError, SyntaxError), match=words):
        colour(file)
