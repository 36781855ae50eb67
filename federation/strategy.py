"""What goes into the global model: only sound results of clients, averaged the same way on every machine."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
from flwr.common import (
    EvaluateRes,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg

MAX_EXAMPLES = 10_000_000  # more than any of these devices can hold; a larger number would take over the average


class DeviceFedAvg(FedAvg):
    """FedAvg (McMahan et al., 2017), averaging in float64 and one result at a time.

    Flower's own averaging rounds differently from version to version; this one gives the same bits on all.
    """

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Average the clients' models, weighted by their examples; None if there are no results."""
        if not results:
            return None, {}
        total = sum(result.num_examples for _, result in results)
        sums: list[np.ndarray] = []
        for _, result in results:
            arrays = parameters_to_ndarrays(result.parameters)
            dtypes = [array.dtype for array in arrays]
            sums = sums or [np.zeros(array.shape, np.float64) for array in arrays]
            for running_sum, array in zip(sums, arrays):
                running_sum += np.multiply(array, result.num_examples, dtype=np.float64)
        averages = [(running_sum / total).astype(dtype) for running_sum, dtype in zip(sums, dtypes)]
        return ndarrays_to_parameters(averages), {}


def weighted_average(results: list[tuple[int, Metrics]]) -> Metrics:
    """Average every metric over the clients that report it as a finite number, weighted by their examples."""
    average: dict[str, Scalar] = {}
    for name in sorted({name for _, metrics in results for name in metrics}):
        known = [(examples, metrics[name]) for examples, metrics in results if _is_number(metrics.get(name))]
        total = sum(examples for examples, _ in known)
        if total > 0:
            average[name] = sum(examples * value for examples, value in known) / total
    return average


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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


def fault_in_model(parameters: Parameters, reference: Sequence[np.ndarray] | None = None) -> str | None:
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


def fault_in_fit(result: FitRes, reference: Sequence[np.ndarray]) -> str | None:
    """Return why the result of a training cannot be averaged, or None if it can."""
    return fault_in_model(result.parameters, reference) or _fault_in_number(result.num_examples)


def fault_in_evaluation(result: EvaluateRes) -> str | None:
    """Return why the result of an evaluation cannot be averaged, or None if it can."""
    if not _is_number(result.loss):
        return f"its loss is {result.loss}"
    return _fault_in_number(result.num_examples)


def _fault_in_number(num_examples: int) -> str | None:
    if 1 <= num_examples <= MAX_EXAMPLES:
        return None
    return f"it claims {num_examples} examples"
