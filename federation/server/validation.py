"""What counts: whether a client's result can go into an average, and if not, why."""

from __future__ import annotations

import math

import numpy as np
from flwr.common import EvaluateRes, FitRes, NDArrays, Parameters, ndarrays_to_parameters, parameters_to_ndarrays

MAX_EXAMPLES = 10_000_000  # more than any of these devices can hold; a larger number would take over the average


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


def check_fit(result: FitRes, model: NDArrays) -> None:
    """Raise ValueError, with the reason, if the result of a training cannot be averaged with others.

    It needs as many arrays as the global `model`, of the same shapes. If their numbers are of another type, such as
    float64, `result` gets them in the model's.
    """
    arrays = decode(result.parameters)
    if len(arrays) != len(model):
        raise ValueError(f"it has {len(arrays)} arrays, the global model {len(model)}")
    for i, (array, expected) in enumerate(zip(arrays, model)):
        if array.shape != expected.shape:
            raise ValueError(f"array {i} is of shape {array.shape}, the global model's of {expected.shape}")
    if any(array.dtype != expected.dtype for array, expected in zip(arrays, model)):
        arrays = [in_type(array, expected.dtype) for array, expected in zip(arrays, model)]
        result.parameters = ndarrays_to_parameters(arrays)
    _check_number(result.num_examples)


def check_evaluation(result: EvaluateRes) -> None:
    """Raise ValueError, with the reason, if the result of an evaluation cannot be averaged with others."""
    if as_number(result.loss) is None:
        raise ValueError(f"its loss is {result.loss}")
    _check_number(result.num_examples)


def _check_number(num_examples: int) -> None:
    if not 1 <= num_examples <= MAX_EXAMPLES:
        raise ValueError(f"it claims {num_examples} examples")
