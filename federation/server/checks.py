"""Check whether a client's result can go into an average; raise ValueError, with the reason, if not."""

from __future__ import annotations

from dataclasses import replace

from federation.wire.handshake import as_number
from federation.wire.models import decode, decode_result
from federation.wire.moments import are_moments, check_moments

from flwr.common import EvaluateRes, FitRes, NDArrays

MAX_EXAMPLES = 10_000_000  # more than any of these devices can hold; a larger number would dominate the average


def accept_fit(result: FitRes, model: NDArrays) -> FitRes:
    """Result of a fit that can be averaged with others: whole, in the types of the global `model`."""
    _check_number(result.num_examples)
    parameters = decode_result(result.parameters, model)
    if are_moments(model):
        check_moments(decode(parameters))
    return replace(result, parameters=parameters)


def accept_evaluation(result: EvaluateRes) -> EvaluateRes:
    """Result of an evaluation that can be averaged with others; a client with nothing to test on has 0 examples."""
    if as_number(result.loss) is None:
        raise ValueError(f"its loss is {result.loss}")
    _check_number(result.num_examples, least=0)
    return result


def _check_number(num_examples: int, least: int = 1) -> None:
    if not least <= num_examples <= MAX_EXAMPLES:
        raise ValueError(f"it claims {num_examples} examples")
