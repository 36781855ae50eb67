"""Decode image files into the pixels that a viewer shows, as they are or scaled to a model's size."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def decode_image(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the pixels of an image file as uint8 of `shape`: height, width, and 1 channel (grey) or 3 (RGB).

    What is transparent becomes white. Of 16 bits a pixel, the upper 8 stay. Raises ValueError if the image has another
    size, or if it is none; Pillow's errors are OSError, SyntaxError and the like.
    """
    from PIL import Image  # here, because a prepared partition does not need it

    height, width, channels = shape
    image = _in_8_bits(Image.open(io.BytesIO(encoded)))
    if image.size != (width, height):
        raise ValueError(f"an image is {image.width} x {image.height} pixels, not {width} x {height}")
    return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(shape)


def decode_picture(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the middle of a picture of any size, as large as it can be, scaled to `shape`; else as `decode_image`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width, channels = shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # small files can want all memory
        try:
            file = Image.open(path)
        except UnidentifiedImageError:
            raise ValueError("it is no image, or of a kind that Pillow does not know") from None
        with file:
            file.draft(None, (4 * width, 4 * height))  # a JPEG is decoded in an eighth of the size, if that is enough
            image = _in_8_bits(file).convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)).reshape(shape)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image that Pillow converts rightly to grey or RGB: upright, opaque, of 8 bits a channel."""
    from PIL import Image, ImageOps

    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    ImageOps.exif_transpose(image, in_place=True)  # else it is copied: 48 MB for a photo
    if is_16_bit:  # Pillow would cut off what is above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"an image has 32 bits a pixel (Pillow's mode {image.mode}), of unknown range")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA"))
    return image
