"""Numbers from the network: single ones, and types of numbers."""

from __future__ import annotations

import math

import numpy as np


def as_number(value: object) -> float | None:
    """Return a value from the network if it is a finite number, else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def in_type(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an array in another type of numbers; raises ValueError if some are out of its range.

    For a type of whole numbers they are rounded: that is nearer than cutting off, which would make averages smaller.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        fits = np.isfinite(converted).all()
    else:
        rounded = np.rint(array) if array.dtype.kind == "f" else array
        limits = np.iinfo(dtype)
        # As Python's numbers, because NumPy compares large ones as floats.
        fits = array.size == 0 or limits.min <= int(rounded.min()) <= int(rounded.max()) <= limits.max
        converted = rounded.astype(dtype) if fits else rounded
    if not fits:
        raise ValueError(f"some of its numbers are out of range for the global model's {dtype}")
    return converted
