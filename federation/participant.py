"""What the server talks to on a device: the script's client, wrapped in what a long run on real devices needs."""

from __future__ import annotations

import hashlib
import os
import signal
import time
import traceback
from dataclasses import replace
from typing import Any, Callable, Mapping, TypeVar

from federation.admission import Refused, printable, proof
from federation.device import vital_signs

import numpy as np
from flwr.client import Client, NumPyClient
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
    Parameters,
    Scalar,
    Status,
)

Result = TypeVar("Result", FitRes, EvaluateRes, GetParametersRes)
NO_PARAMETERS = Parameters(tensors=[], tensor_type="")


class Participant(Client):
    """Answers the server's questions, and prints a line for each fit and evaluate.

    It adds `seconds` and `vital_signs()` to the metrics. An error in the wrapped client is printed here and told to
    the server, as a result that failed; the connection stays. `was_asked` tells whether the server asked anything.
    """

    def __init__(self, client: NumPyClient, identity: Mapping[str, int | str], token: bytes | None) -> None:
        self.client = client.to_client()
        self.identity = identity
        self.token = token
        self.was_asked = False
        self.last_question = b""
        self.last_result: FitRes | None = None

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Tell the server who this is; raises Refused if the server's answer to that was no."""
        self.was_asked = True
        exit_at_signals()  # start_client of Flower 1.11 has replaced what was set before
        if "refused" in ins.config:
            raise Refused(printable(str(ins.config["refused"])), again=bool(ins.config.get("again")))
        properties: dict[str, Scalar] = dict(self.identity)
        if self.token is not None:
            properties["proof"] = proof(self.token, str(ins.config.get("nonce")), self.identity)
        return GetPropertiesRes(Status(Code.OK, ""), properties)

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Return the wrapped client's untrained model."""

        def failed(reason: str) -> GetParametersRes:
            return GetParametersRes(Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED, reason), NO_PARAMETERS)

        return self._call(self.client.get_parameters, ins, failed)

    def fit(self, ins: FitIns) -> FitRes:
        """Let the wrapped client train.

        If the connection breaks, the server asks again for the same. The result is kept for that.
        """
        question = _digest(ins)
        if question == self.last_question:
            print(f"round {ins.config.get('server_round', '?')}: sending the result again", flush=True)
        else:
            self.last_result = self._fit(ins)
            self.last_question = question if self.last_result.status.code == Code.OK else b""
        tensors = list(self.last_result.parameters.tensors)  # a copy, because Flower empties the list
        return replace(self.last_result, parameters=replace(self.last_result.parameters, tensors=tensors))

    def _fit(self, ins: FitIns) -> FitRes:
        def failed(reason: str) -> FitRes:
            return FitRes(Status(Code.FIT_NOT_IMPLEMENTED, reason), NO_PARAMETERS, 0, {})

        return self._call(lambda ins: _report("fit", self.client.fit, ins), ins, failed)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Let the wrapped client evaluate."""
        self.last_question = b""
        self.last_result = None  # the server has it, or does not want it any more

        def failed(reason: str) -> EvaluateRes:
            return EvaluateRes(Status(Code.EVALUATE_NOT_IMPLEMENTED, reason), 0.0, 0, {})

        return self._call(lambda ins: _report("evaluate", self.client.evaluate, ins), ins, failed)

    def _call(self, task: Callable[[Any], Result], ins: object, failed: Callable[[str], Result]) -> Result:
        """Return `task(ins)`, or what `failed` makes of the reason if that raises an error."""
        self.was_asked = True
        try:
            return task(ins)
        except Exception as error:
            traceback.print_exc()
            # Of Flower's codes, "not implemented" is the one that is not OK and that every version knows.
            return failed(f"{type(error).__name__}: {error}")


def _digest(ins: FitIns) -> bytes:
    """Return a hash of an instruction: of the model and what is to be done with it."""
    digest = hashlib.sha256(repr(sorted(ins.config.items())).encode())
    for tensor in ins.parameters.tensors:
        digest.update(tensor)
    return digest.digest()


def _report(name: str, task: Callable, ins: FitIns | EvaluateIns) -> FitRes | EvaluateRes:
    """Run a task, print what came of it, and add to its metrics."""
    started = time.perf_counter()
    result = task(ins)
    seconds = time.perf_counter() - started
    # Flower can send Python's numbers, not NumPy's, and neither lists nor None.
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in result.metrics.items()}
    metrics = {key: value for key, value in plain.items() if isinstance(value, (int, float, str, bytes))}
    figures = {"loss": result.loss, **metrics} if name == "evaluate" else metrics
    shown = "".join(f", {key.replace('_', ' ')} {v:.4f}" for key, v in figures.items() if isinstance(v, float))
    server_round = ins.config.get("server_round", "?")
    print(f"round {server_round}: {name} on {result.num_examples} examples{shown}, {seconds:.1f} s", flush=True)
    result.metrics = {**metrics, "seconds": round(seconds, 3), **vital_signs()}
    return result


def exit_at_signals() -> None:
    """Let Ctrl-C and SIGTERM end this process at once: nothing here has to be saved."""

    def leave(number: int, _frame: object) -> None:
        os.write(1, f"stopped by {signal.Signals(number).name}\n".encode())  # print may be at work just now
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
