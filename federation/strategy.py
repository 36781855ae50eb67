"""Federated averaging for devices: waits for its clients, keeps every new global model, reports every round."""

from __future__ import annotations

import math

from federation.report import Report

from flwr.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
    Scalar,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg


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


class DeviceFedAvg(FedAvg):
    """FedAvg (McMahan et al., 2017) with what a run on real devices needs around it.

    It takes FedAvg's arguments and a `report`. `committed` counts the rounds whose global model is on disk.
    """

    def __init__(self, *, report: Report, **fedavg_arguments) -> None:
        super().__init__(**fedavg_arguments)
        self.report = report
        self.committed = 0

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Sample the clients of a round, once `min_available_clients` are connected."""
        # FedAvg takes its fraction of the clients that are there before it waits for the others.
        missing = self.min_available_clients - client_manager.num_available()
        if missing > 0:
            print(f"round {server_round} waits for {self.min_available_clients} clients: {missing} missing", flush=True)
            while not client_manager.wait_for(self.min_available_clients):
                pass  # wait_for gives up after a day
        self._fit_counts = 0, 0  # results and failures
        self.report.start_round(server_round)
        return super().configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Average the clients' models and keep the new global model on disk."""
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if parameters is not None:
            self.report.save_model(parameters_to_ndarrays(parameters))
            self.committed += 1
        for client, result in results:
            self.report.add_fit(client.cid, result.num_examples, result.metrics)
        self._fit_counts = len(results), len(failures)
        return parameters, metrics

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, dict[str, Scalar]] | None:
        """Evaluate the global model on the server, after a round of training."""
        result = super().evaluate(server_round, parameters) if server_round > 0 else None
        if result is not None:
            self.report.add_central_evaluation(loss=result[0], accuracy=result[1]["accuracy"])
        return result

    def num_evaluation_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many clients evaluate, and that one is enough: only the training waits for the minimum."""
        sample_size, _ = super().num_evaluation_clients(num_available_clients)
        return sample_size, 1

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Sample the clients that evaluate the new global model; if all have left, the round ends without that."""
        if client_manager.num_available() == 0:
            self.aggregate_evaluate(server_round, [], [])
            return []
        return super().configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Average what the clients measured, which ends the round."""
        loss, metrics = super().aggregate_evaluate(server_round, results, failures)
        for client, result in results:
            self.report.add_evaluation(client.cid, result.loss, result.metrics)
        num_fitted, fit_failures = self._fit_counts
        self.report.end_round(num_fitted, fit_failures + len(failures), loss, metrics.get("accuracy"))
        return loss, metrics
