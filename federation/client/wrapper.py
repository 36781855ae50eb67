"""The script's client, wrapped for long runs on real devices: whatever the server asks, it gets an answer."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import replace
from typing import Any, Callable

from federation.client.about import vital_signs
from federation.client.power import Meter
from federation.client.threads import Threads
from federation.flags import Failure
from federation.wire import handshake
from federation.wire.handshake import class_list, fingerprint
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
    Scalar,
    Status,
    ndarrays_to_parameters,
)


class ClientWrapper:
    """Answers the server's messages, and prints a line for each fit and evaluate.

    It adds `seconds`, `vital_signs()` and, after a fit, the meter's figures to the metrics. An error in the script's
    client is printed here and sent to the server as a failed result; the connection stays open. A client whose first
    model is always the same has `same_start`: the server need not send it. A client that can learn any classes has
    `choose_classes`: it takes the classes that the server names, or none, and returns its own.
    """

    def __init__(
        self,
        client: NumPyClient,
        identity: handshake.Identity,
        token: bytes | None,
        meter: Meter | None,
        threads: Threads | None = None,
    ) -> None:
        self.script_client: Any = client
        self.client = client.to_client()
        self.identity = identity
        self.token = token
        self.meter = meter
        self.threads = threads or Threads()
        self.inbound = Inbound()
        self.last_fit: object = None  # its model's digest and its settings
        self.last_result: FitRes | None = None

    def answer(self, task: str, instruction: Any) -> Any:
        """Return Flower's result of a task, such as "fit".

        Raises Refused if the server refused this client, Failure if this client cannot say who it is.
        """
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
            return failure(task, "it does not have that model", LACKS_MODEL)
        except Failure as error:
            if task == "get_properties":  # without an identity, it would pass for a plain Flower client
                raise
            print(error)
            return failure(task, f"{error}")
        except Exception as error:
            traceback.print_exc()
            return failure(task, f"{type(error).__name__}: {error}")

    def _get_properties(self, instruction: GetPropertiesIns) -> GetPropertiesRes:
        if hasattr(self.script_client, "choose_classes"):
            classes = self.script_client.choose_classes(handshake.told_classes(instruction.config))
            model = fingerprint(self.script_client.get_parameters({}))
            self.identity = replace(self.identity, classes=class_list(classes), model=model)
        if getattr(self.script_client, "same_start", False) and not self.inbound.digest:
            self.inbound.receive(ndarrays_to_parameters(self.script_client.get_parameters({})))
        return GetPropertiesRes(Status(Code.OK, ""), handshake.answer(instruction.config, self.identity, self.token))

    def _get_parameters(self, instruction: GetParametersIns) -> GetParametersRes:
        result = self.client.get_parameters(instruction)
        self.inbound.receive(result.parameters)  # the server will send it back as the initial model
        return result

    def _fit(self, instruction: FitIns) -> FitRes:
        """Let the client train; if the server repeats a request after a broken connection, do not train again."""
        this_fit = digest(instruction.parameters), sorted(instruction.config.items())
        if this_fit == self.last_fit and self.last_result is not None:
            print(f"{_round(instruction)}: sending the result again")
            return self.last_result
        self.last_result = None  # free its memory for the training
        received = replace(instruction, parameters=self.inbound.receive(instruction.parameters))
        self.threads.adapt()
        result = _measured("fit", self.client.fit, received, self.meter)
        result = replace(result, parameters=self.inbound.answer(result.parameters))
        self.inbound.forget()  # the next request has another model
        self.last_fit, self.last_result = this_fit, result
        return result

    def _evaluate(self, instruction: EvaluateIns) -> EvaluateRes:
        self.last_result = None  # the server has it, or no longer needs it
        received = replace(instruction, parameters=self.inbound.receive(instruction.parameters))
        return _measured("evaluate", self.client.evaluate, received)


def _measured(
    task: str, call: Callable[[Any], Any], instruction: FitIns | EvaluateIns, meter: Meter | None = None
) -> Any:
    """Return `call(instruction)` with figures about the device added to its metrics, and print a summary."""
    started = time.perf_counter()
    with meter or contextlib.nullcontext():
        result = call(instruction)
        seconds = time.perf_counter() - started
    costs = meter.figures(seconds) if meter else {}
    metrics = _as_scalars(result.metrics)
    figures = {"loss": result.loss, **metrics} if task == "evaluate" else metrics
    shown = "".join(f", {name.replace('_', ' ')} {v:.4g}" for name, v in figures.items() if isinstance(v, float))
    result = replace(result, metrics={**metrics, "seconds": round(seconds, 3), **vital_signs(), **costs})
    spent = f", {costs['energy_j']:.1f} J at {costs['power_w']:.1f} W" if "energy_j" in costs else ""
    print(f"{_round(instruction)}: {task} on {result.num_examples} examples{shown}, {seconds:.1f} s{spent}")
    return result


def _as_scalars(metrics: dict[str, Any]) -> dict[str, Scalar]:
    """Return the metrics that Flower can send: Python's numbers, not NumPy's, and no lists or None."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if isinstance(value, (int, float, str, bytes))}


def _round(instruction: FitIns | EvaluateIns) -> str:
    return f"round {instruction.config.get('server_round', '?')!s}"
