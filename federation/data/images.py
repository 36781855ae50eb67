"""Decode image files into the pixels that a viewer shows, as they are or scaled to a model's size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 90_000_000  # that are decoded: 270 MB
ORIENTATION = 0x0112  # EXIF's tag: how the camera was held
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


def decode_image(file: Path | BinaryIO, shape: tuple[int, int, int], fit: bool = False) -> np.ndarray:
    """The pixels of an image file as uint8 of `shape`: height, width, and 1 channel (grey) or 3 (RGB).

    Transparent pixels become white. Of 16 bits a pixel, the upper 8 are kept. With `fit`, the largest possible middle
    part of an image of any size is scaled to `shape`; without, another size is a ValueError. If the file cannot be
    decoded, Pillow raises OSError, SyntaxError and others.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # here: a prepared partition does not need them

    height, width, channels = shape
    Image.MAX_IMAGE_PIXELS = None  # Pillow counts the pixels in the file, we count those that are decoded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata, for example
        try:
            image = Image.open(file)
        except UnidentifiedImageError:
            raise ValueError("it is not an image, or of a format that Pillow does not know") from None
        with image:
            image.draft(None, (4 * width, 4 * height))  # decodes a JPEG at an eighth of its size, if that is enough
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels, too many to decode")
            decoded, mode = _upright_and_opaque(image), "L" if channels == 1 else "RGB"
    if decoded.mode != mode:  # convert would make a copy
        decoded = decoded.convert(mode)
    if fit:
        decoded = ImageOps.fit(decoded, (width, height), Image.Resampling.LANCZOS)
    if decoded.size != (width, height):
        raise ValueError(f"an image is {decoded.width} x {decoded.height} pixels, not {width} x {height}")
    return np.asarray(decoded).reshape(shape)


def _upright_and_opaque(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits a channel, so that Pillow converts it correctly to grey or RGB."""
    from PIL import Image

    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image.load()  # also turns a TIFF upright
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))  # not ImageOps.exif_transpose: it fails on other odd fields
    if turn is not None:
        image = image.transpose(Image.Transpose[turn])
    if is_16_bit:  # Pillow would clip values above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image
