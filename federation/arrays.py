"""Numbers from the network: single ones, and the arrays of a model."""

from __future__ import annotations

import math

import numpy as np
from flwr.common import NDArrays, Parameters, parameters_to_ndarrays


def as_number(value: object) -> float | None:
    """Return a value from the network if it is a finite number, else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def decode(parameters: Parameters) -> NDArrays:
    """Return the arrays in `parameters`; raises ValueError, with the reason, if they are not a model's."""
    try:
        arrays = parameters_to_ndarrays(parameters)
    except Exception as error:  # bytes from the network: NumPy raises whatever its reading stumbles over
        raise ValueError(f"its bytes are no arrays ({type(error).__name__})") from error
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "fiu":
            raise ValueError(f"array {i} holds no numbers but {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"array {i} has NaN or infinity in it")
    if not arrays:
        raise ValueError("it has no arrays")
    return arrays


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
