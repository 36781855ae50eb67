"""Image files become the pixels that a viewer shows, whatever their kind; what cannot be shown is refused."""

from __future__ import annotations

import io
import zlib

from federation.data.images import decode_image

import numpy as np
import pytest
from PIL import Image

GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17  # 0 to 255
COLOUR = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def grey(file: bytes) -> list[list[int]]:
    return decode_image(io.BytesIO(file), (4, 4, 1))[:, :, 0].tolist()


def colour(file: bytes) -> np.ndarray:
    return decode_image(io.BytesIO(file), (4, 4, 3))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_divided(kind):
    assert grey(encoded(GREY.astype(np.uint16) * 257, kind)) == GREY.tolist()
    assert np.array_equal(colour(encoded(GREY.astype(np.uint16) * 257, kind))[:, :, 2], GREY)
    assert grey(encoded(np.full((4, 4), 200, np.uint16), kind)) == [[0] * 4] * 4  # a dark image stays dark


def test_what_is_transparent_is_white():
    """The colours that such pixels have all the same, often black, are not to be seen."""
    alpha = np.array([[0, 0, 255, 255]] * 4, np.uint8)
    rgba = np.dstack([np.full((4, 4), 10, np.uint8)] * 3 + [alpha])
    for mode in ("RGBA", "LA"):
        assert grey(encoded(Image.fromarray(rgba).convert(mode))) == [[255, 255, 10, 10]] * 4
    keyed = encoded(COLOUR, transparency=tuple(map(int, COLOUR[1, 2])))
    expected = COLOUR.copy()
    expected[1, 2] = 255
    assert np.array_equal(colour(keyed), expected)


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
    assert np.array_equal(colour(encoded(COLOUR, kind, exif=exif)), turns[orientation](COLOUR))


def test_a_turned_photo_with_an_odd_field():
    """Pillow can read this EXIF, but not write it: a text where a number belongs."""
    entries = [(0x0100, 2, 4, b"wide"), (0x0112, 3, 1, b"\x08\0\0\0")]  # ImageWidth, Orientation
    fields = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
        for tag, kind, count, value in entries
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + fields + bytes(4)
    assert np.array_equal(colour(encoded(COLOUR, exif=exif)), np.rot90(COLOUR))


def png_of(side: int) -> bytes:
    """A small PNG that says that it is so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def test_the_limit_is_for_what_is_decoded():
    """A JPEG is decoded in an eighth of its size: 108 million pixels, as phones make them, take 5 MB."""
    photo = encoded(Image.new("L", (12000, 9000), 100), "jpeg")
    assert decode_image(io.BytesIO(photo), (28, 28, 1), fit=True).tolist() == [[[100]] * 28] * 28
    with pytest.raises(ValueError, match="it has 60000 x 60000 pixels, too many to decode"):
        decode_image(io.BytesIO(png_of(60_000)), (28, 28, 1), fit=True)


def test_the_middle_of_a_photo_is_scaled():
    wide = Image.new("L", (300, 100), 255)
    wide.paste(9, (100, 0, 200, 100))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        assert (decode_image(io.BytesIO(encoded(image)), (28, 28, 1), fit=True)[3:-3, 3:-3] == 9).all()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (encoded(Image.new("L", (5, 4))), "5 x 4 pixels, not 4 x 4"),
        (b"no image", "it is not an image, or of a format that Pillow does not know"),
        (encoded(COLOUR)[:60], "truncated|broken|no image"),
    ],
)
def test_what_cannot_be_shown(file, words):
    with pytest.raises((ValueError, OSError, SyntaxError), match=words):
        colour(file)
