"""What counts: whether a client's result can go into an average, and if not, why."""

from __future__ import annotations

from federation.wire.handshake import as_number
from federation.wire.models import WHOLE, decode, in_type

from flwr.common import EvaluateRes, FitRes, NDArrays, ndarrays_to_parameters

MAX_EXAMPLES = 10_000_000  # more than any of these devices can hold; a larger number would take over the average


def check_fit(result: FitRes, model: NDArrays) -> None:
    """Raise ValueError, with the reason, if the result of a training cannot be averaged with others.

    It needs as many arrays as the global `model`, of the same shapes. If it is a difference, or its numbers are of
    another type, such as float64, `result` gets the whole in the model's types.
    """
    arrays = decode(result.parameters, model)
    if len(arrays) != len(model):
        raise ValueError(f"it has {len(arrays)} arrays, the global model {len(model)}")
    for i, (array, expected) in enumerate(zip(arrays, model)):
        if array.shape != expected.shape:
            raise ValueError(f"array {i} is of shape {array.shape}, the global model's of {expected.shape}")
    is_ready = result.parameters.tensor_type == WHOLE
    if not is_ready or any(array.dtype != expected.dtype for array, expected in zip(arrays, model)):
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
