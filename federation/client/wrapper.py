"""The script's client, wrapped in what a long run on real devices needs: an answer to whatever the server asks."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import replace
from typing import Any, Callable

from federation.client.about import vital_signs
from federation.client.power import Meter
from federation.client.threads import Threads
from federation.wire import handshake
from federation.wire.messages import failure
from federation.wire.models import LACKS_MODEL, Inbound, Lacks, digest

import numpy as np
from flwr.client import NumPyClient
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Status,
)


class ClientWrapper:
    """Answers the server's messages, and prints a line for each fit and evaluate.

    It adds `seconds`, `vital_signs()` and, to a fit, what the meter says to the metrics. An error in the script's
    client is printed here and told to the server, as a result that failed; the connection stays.
    """

    def __init__(
        self,
        client: NumPyClient,
        identity: handshake.Identity,
        token: bytes | None,
        meter: Meter | None,
        threads: Threads,
    ) -> None:
        self.client = client.to_client()
        self.identity = identity
        self.token = token
        self.meter = meter
        self.threads = threads
        self.inbound = Inbound()
        self.last_fit: tuple[object, FitRes] | None = None  # what it was to do with which model, and what came of it

    def answer(self, task: str, instruction: Any) -> Any:
        """Flower's result of a task, such as "fit"; raises Refused if the server does not want this client."""
        tasks: dict[str, Callable[[Any], Any]] = {
            "get_properties": self._get_properties,
            "get_parameters": self._get_parameters,
            "fit": self._fit,
            "evaluate": self._evaluate,
        }
        try:
            return tasks[task](instruction)
        except handshake.Refused:
            raise
        except Lacks:
            return failure(task, "it lacks that model", LACKS_MODEL)
        except Exception as error:
            traceback.print_exc()
            return failure(task, f"{type(error).__name__}: {error}")

    def _get_properties(self, instruction: GetPropertiesIns) -> GetPropertiesRes:
        return GetPropertiesRes(Status(Code.OK, ""), handshake.answer(instruction.config, self.identity, self.token))

    def _get_parameters(self, instruction: GetParametersIns) -> GetParametersRes:
        result = self.client.get_parameters(instruction)
        self.inbound.receive(result.parameters)  # as the initial model, it will come back
        return result

    def _fit(self, instruction: FitIns) -> FitRes:
        """Let the client train; if the connection broke and the server asks for the same again, do not train again."""
        this_fit = digest(instruction.parameters), sorted(instruction.config.items())
        if self.last_fit and self.last_fit[0] == this_fit:
            print(f"{_round(instruction)}: sending the result again")
            return self.last_fit[1]
        received = replace(instruction, parameters=self.inbound.receive(instruction.parameters))
        self.threads.adapt()
        result = _measured("fit", self.client.fit, received, self.meter)
        result = replace(result, parameters=self.inbound.answer(result.parameters))
        self.inbound.forget()  # the next model is another one
        self.last_fit = this_fit, result
        return result

    def _evaluate(self, instruction: EvaluateIns) -> EvaluateRes:
        received = replace(instruction, parameters=self.inbound.receive(instruction.parameters))
        return _measured("evaluate", self.client.evaluate, received)


def _measured(
    task: str, call: Callable[[Any], Any], instruction: FitIns | EvaluateIns, meter: Meter | None = None
) -> Any:
    """Result of `call(instruction)` with figures about the device among its metrics; prints what came of it."""
    started = time.perf_counter()
    with meter or contextlib.nullcontext():
        result = call(instruction)
        seconds = time.perf_counter() - started
    costs = meter.figures(seconds) if meter else {}
    # Flower sends Python's numbers, not NumPy's.
    metrics = {name: v.item() if isinstance(v, np.generic) else v for name, v in result.metrics.items()}
    figures = {"loss": result.loss, **metrics} if task == "evaluate" else metrics
    shown = "".join(f", {name.replace('_', ' ')} {v:.4g}" for name, v in figures.items() if isinstance(v, float))
    result = replace(result, metrics={**metrics, "seconds": round(seconds, 3), **vital_signs(), **costs})
    spent = f", {costs['energy_j']:.1f} J at {costs['power_w']:.1f} W" if "energy_j" in costs else ""
    print(f"{_round(instruction)}: {task} on {result.num_examples} examples{shown}, {seconds:.1f} s{spent}")
    return result


def _round(instruction: FitIns | EvaluateIns) -> str:
    return f"round {instruction.config.get('server_round', '?')!s}"
