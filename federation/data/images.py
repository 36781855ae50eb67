"""Decode image files into the pixels that a viewer shows, as they are or scaled to a model's size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def decode_image(file: Path | BinaryIO, shape: tuple[int, int, int], fit: bool = False) -> np.ndarray:
    """The pixels of an image file as uint8 of `shape`: height, width, and 1 channel (grey) or 3 (RGB).

    What is transparent becomes white. Of 16 bits a pixel, the upper 8 stay. With `fit`, the middle of an image of any
    size, as large as it can be, is scaled to `shape`; else another size is a ValueError. If it cannot be decoded,
    Pillow's errors are OSError, SyntaxError and others.
    """
    from PIL import Image, ImageOps  # here: a prepared partition does not need them

    height, width, channels = shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of odd metadata
        with Image.open(file) as image:
            image.draft(None, (4 * width, 4 * height))  # a JPEG is decoded in an eighth of the size, if that is enough
            decoded = _upright_and_opaque(image).convert("L" if channels == 1 else "RGB")
    if fit:
        decoded = ImageOps.fit(decoded, (width, height), Image.Resampling.LANCZOS)
    if decoded.size != (width, height):
        raise ValueError(f"an image is {decoded.width} x {decoded.height} pixels, not {width} x {height}")
    return np.asarray(decoded).reshape(shape)


def _upright_and_opaque(image: Image.Image) -> Image.Image:
    """An image that Pillow converts rightly to grey or RGB, of 8 bits a channel."""
    from PIL import Image, ImageOps

    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image.load()  # and Pillow turns a TIFF
    ImageOps.exif_transpose(image, in_place=True)
    if is_16_bit:  # Pillow would cut off what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image
