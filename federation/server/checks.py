"""What counts: whether a client's result can go into an average, and if not, why."""

from __future__ import annotations

from dataclasses import replace

from federation.wire.handshake import as_number
from federation.wire.models import WHOLE, decode, in_models_type

from flwr.common import EvaluateRes, FitRes, GetParametersRes, NDArrays, ndarrays_to_parameters

MAX_EXAMPLES = 10_000_000  # more than any of these devices can hold; a larger number would take over the average


def accept_initial_model(result: GetParametersRes) -> GetParametersRes:
    """Return the result; raises ValueError, with the reason, if it holds no model."""
    decode(result.parameters)
    return result


def accept_fit(result: FitRes, model: NDArrays) -> FitRes:
    """Return the result of a training as it can be averaged with others: whole, in the types of the global `model`.

    Raises ValueError, with the reason, if it cannot. It needs as many arrays as the global model, of the same shapes.
    """
    arrays = decode(result.parameters, model)
    if len(arrays) != len(model):
        raise ValueError(f"it has {len(arrays)} arrays, the global model {len(model)}")
    for i, (array, expected) in enumerate(zip(arrays, model)):
        if array.shape != expected.shape:
            raise ValueError(f"array {i} is of shape {array.shape}, the global model's of {expected.shape}")
    _check_number(result.num_examples)
    is_ready = result.parameters.tensor_type == WHOLE
    if is_ready and all(array.dtype == expected.dtype for array, expected in zip(arrays, model)):
        return result
    arrays = [in_models_type(array, expected.dtype) for array, expected in zip(arrays, model)]
    return replace(result, parameters=ndarrays_to_parameters(arrays))


def accept_evaluation(result: EvaluateRes) -> EvaluateRes:
    """Return the result of an evaluation; raises ValueError, with the reason, if it cannot be averaged with others."""
    if as_number(result.loss) is None:
        raise ValueError(f"its loss is {result.loss}")
    _check_number(result.num_examples)
    return result


def _check_number(num_examples: int) -> None:
    if not 1 <= num_examples <= MAX_EXAMPLES:
        raise ValueError(f"it claims {num_examples} examples")
