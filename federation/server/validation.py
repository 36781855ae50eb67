"""What counts: whether a client's result can go into an average, and if not, why."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from flwr.common import EvaluateRes, FitRes, NDArrays, Parameters, parameters_to_ndarrays

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


def problem_with_model(parameters: Parameters, reference: Sequence[np.ndarray] | None = None) -> str | None:
    """Return why a model is of no use, or None: if its arrays are finite, and those of the `reference` in shape."""
    try:
        arrays = decode(parameters)
    except ValueError as error:
        return str(error)
    if reference is None:
        return None
    if len(arrays) != len(reference):
        return f"it has {len(arrays)} arrays, the global model {len(reference)}"
    for i, (array, expected) in enumerate(zip(arrays, reference)):
        if (array.shape, array.dtype) != (expected.shape, expected.dtype):
            found, wanted = (f"{a.dtype} of shape {a.shape}" for a in (array, expected))
            return f"array {i} is {found}, the global model's {wanted}"
    return None


def problem_with_fit(result: FitRes, reference: Sequence[np.ndarray]) -> str | None:
    """Return why the result of a training cannot be averaged with others, or None if it can."""
    return problem_with_model(result.parameters, reference) or _problem_with_number(result.num_examples)


def problem_with_evaluation(result: EvaluateRes) -> str | None:
    """Return why the result of an evaluation cannot be averaged with others, or None if it can."""
    if as_number(result.loss) is None:
        return f"its loss is {result.loss}"
    return _problem_with_number(result.num_examples)


def _problem_with_number(num_examples: int) -> str | None:
    if 1 <= num_examples <= MAX_EXAMPLES:
        return None
    return f"it claims {num_examples} examples"
