"""How the clients' results become the global model: averages that are the same, bit for bit, on every machine."""

from __future__ import annotations

from federation.wire.handshake import as_number

import numpy as np
from flwr.common import FitRes, Metrics, Parameters, Scalar, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg


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
        first = parameters_to_ndarrays(results[0][1].parameters)
        sums = [np.zeros(array.shape, np.float64) for array in first]
        types = [array.dtype for array in first]
        for _, result in results:
            arrays = parameters_to_ndarrays(result.parameters)
            types = [np.promote_types(dtype, array.dtype) for dtype, array in zip(types, arrays)]
            for running_sum, array in zip(sums, arrays):
                running_sum += np.multiply(array, result.num_examples, dtype=np.float64)
        averages = [running_sum / total for running_sum in sums]
        # Averages of whole numbers are rounded: truncated, they would get smaller and smaller.
        rounded = [mean if dtype.kind == "f" else np.rint(mean) for mean, dtype in zip(averages, types)]
        return ndarrays_to_parameters([mean.astype(dtype) for mean, dtype in zip(rounded, types)]), {}


def weighted_average(results: list[tuple[int, Metrics]]) -> Metrics:
    """Average every metric over the clients that report it as a finite number, weighted by their examples."""
    average: Metrics = {}
    for name in sorted({name for _, metrics in results for name in metrics}):
        values = [(examples, as_number(metrics.get(name))) for examples, metrics in results]
        known = [(examples, value) for examples, value in values if value is not None]
        total = sum(examples for examples, _ in known)
        if total > 0:
            average[name] = sum(examples * value for examples, value in known) / total
    return average
