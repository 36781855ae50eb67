"""The rounds of federated learning: sample, fit, check, average, save, evaluate, with a limit on every wait."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import replace
from typing import Any, Callable, List, Sequence, Tuple, Union

from federation.flags import Failure
from federation.results import checkpoint
from federation.results.checkpoint import Checkpoint
from federation.results.report import Report
from federation.results.run_file import RunFile
from federation.server import checks
from federation.server.client_manager import DeviceClientManager
from federation.server.dispatch import Answer, Dispatch, Instructions
from federation.server.fit_config import Orders, derive
from federation.server.flags import RunSettings
from federation.wire.handshake import as_number, identity_of, key_of, name_of, printable
from federation.wire.models import Outbound, decode, in_models_type

from flwr.common import Code, GetParametersIns, NDArrays, ReconnectIns
from flwr.server import Server
from flwr.server.client_proxy import ClientProxy
from flwr.server.history import History
from flwr.server.strategy import Strategy

STOP_SIGNALS = signal.SIGINT, signal.SIGTERM
INITIAL_MODEL_TIMEOUT = 300  # seconds for a client to send its model; then another one is asked
GOODBYE_TIMEOUT = 2  # seconds to tell the clients that the run is over

Results = List[Tuple[ClientProxy, Any]]  # as Flower's strategies want them; Any is a FitRes or EvaluateRes
Failures = List[Union[Tuple[ClientProxy, Any], BaseException]]


class DeviceServer(Server):
    """Flower's server with its own loop over the rounds.

    It works with any strategy of Flower, and gives it only valid results, sorted by the clients' --cid. The price is
    that models are decoded and encoded more than once: strategies take and return them as bytes. `checkpoint` is what
    is on disk, including the global model. Clients need the `token`, if there is one, and receive the `classes`.
    `quiet`: do not print who joins and leaves.
    """

    def __init__(
        self,
        strategy: Strategy,
        settings: RunSettings,
        token: bytes | None = None,
        quiet: bool = False,
        classes: Sequence[str] = (),
    ) -> None:
        """Make the folder of results; raises Failure if it cannot be written."""
        self.checkpoint = settings.resumed or Checkpoint()
        self.outbound = Outbound(self.checkpoint.model, settings.half_precision)
        self.clients = DeviceClientManager(token, self.checkpoint.member, quiet, classes)
        super().__init__(client_manager=self.clients, strategy=strategy)
        self.settings = settings
        try:
            self.report = Report(settings.results_dir, settings.resumed)
        except OSError as error:
            raise Failure(f"cannot write results: {error}") from error
        self.run_file = RunFile(settings.results_dir, settings.seed, settings.flags)
        self.orders = Orders(settings.seed, settings.fit_bound)

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run the rounds. Flower calls this once clients can connect.

        Raises KeyboardInterrupt at Ctrl-C and SIGTERM, and whatever `run` does.
        """
        for number in STOP_SIGNALS:  # here, because start_server has just set handlers that exit with code 0
            signal.signal(number, signal.default_int_handler)
        self.run()
        return History(), 0.0

    def run(self) -> None:
        """Run the remaining rounds; raises Failure if it cannot go on, OSError if the model cannot be written."""
        self.run_file.save()
        if self.settings.resumed is not None:
            print(f"going on after round {self.checkpoint.round}")
        start_at = time.monotonic()
        for server_round in range(self.checkpoint.round + 1, self.settings.num_rounds + 1):
            time.sleep(max(0.0, start_at - time.monotonic()))
            self._wait_for_clients(server_round)
            start_at = time.monotonic() + self.settings.every
            if not self.checkpoint.model:
                self.checkpoint = replace(self.checkpoint, model=self._initial_model())
                self.outbound = Outbound(self.checkpoint.model, self.settings.half_precision)
                self._wait_for_clients(server_round)  # one may have left meanwhile
            self.clients.is_fixed = True
            self.clients.random = random.Random(derive(self.settings.seed, "sample", server_round))
            self.report.start_round(server_round)
            num_results, num_failures = self._train(server_round)
            self._evaluate(server_round, num_results, num_failures)
            self.orders.end_round(self.report.durations[-1])

    def disconnect_all_clients(self, timeout: float | None) -> None:
        """Tell the clients that the run is over. Flower calls this after `fit`."""
        self.clients.quiet = True  # do not print that they leave
        goodbyes: Instructions = [(client, ReconnectIns(seconds=None)) for client in self.clients.all().values()]
        Dispatch(self.clients, "reconnect", GOODBYE_TIMEOUT).run(goodbyes, patience=0)

    def _wait_for_clients(self, server_round: int) -> None:
        wanted, timeout = self.settings.min_num_clients, self.settings.wait_timeout
        missing = wanted - self.clients.num_available()
        if missing > 0:
            print(f"round {server_round} waits for {wanted} clients: {missing} missing")
            if not self.clients.wait_for(wanted, timeout):
                found = f"{self.clients.num_available()} of {wanted} clients"
                raise Failure(f"only {found} were connected after {timeout:g} s (--wait_timeout)")

    def _initial_model(self) -> NDArrays:
        """The strategy's initial model, or else that of the client with the lowest --cid that can send one."""
        parameters = self.strategy.initialize_parameters(self.clients)
        if parameters is not None:
            return decode(parameters)
        ins = GetParametersIns({"seed": derive(self.settings.seed, "initial model")})
        for client in sorted(self.clients.all().values(), key=key_of):
            answers = Dispatch(self.clients, "get_parameters", INITIAL_MODEL_TIMEOUT).run([(client, ins)])
            models, _ = _sort_out("initial model", answers, lambda result: decode(result.parameters))
            if models:
                return models[0][1]
        raise Failure("no client sent an initial model")

    def _train(self, server_round: int) -> tuple[int, int]:
        """Have clients train and keep the new global model; return the numbers of results and failures."""
        model = self.checkpoint.model
        instructions = self.strategy.configure_fit(server_round, self.outbound.whole, self.clients)
        instructions = self.orders.complete(server_round, instructions)
        results, failures = self._ask("fit", server_round, instructions, lambda res: checks.accept_fit(res, model))
        parameters, _ = self.strategy.aggregate_fit(server_round, results, failures)
        if parameters is not None:
            new = Checkpoint(
                model=[in_models_type(mean, old.dtype) for mean, old in zip(decode(parameters), model)],
                round=server_round,
                committed=self.checkpoint.committed + 1,
                results=len(results),
                failures=len(failures),
                member=self.clients.member,
            )
            checkpoint.save(self.report.folder, new)
            self.checkpoint = new
            self.outbound = Outbound(new.model, self.settings.half_precision, is_new=True)
        self.orders.learn(instructions, results)
        for client, result in results:
            self.report.add_fit(client, result)
            self.run_file.add(identity_of(client))
        self.run_file.save()
        return len(results), len(failures)

    def _evaluate(self, server_round: int, num_fitted: int, fit_failures: int) -> None:
        """Test the global model, here if the strategy can do that and on clients; this ends the round."""
        parameters = self.outbound.whole
        central = self.strategy.evaluate(server_round, parameters)
        if central is not None:
            self.report.add_central_evaluation(*central)
        instructions = self.strategy.configure_evaluate(server_round, parameters, self.clients)
        answers, failures = self._ask("evaluate", server_round, instructions, checks.accept_evaluation)
        results = [(client, result) for client, result in answers if result.num_examples > 0]
        loss, metrics = self.strategy.aggregate_evaluate(server_round, results, failures)
        for client, result in results:
            self.report.add_evaluation(client, result)
        accuracy = as_number(metrics.get("accuracy"))
        self.report.end_round(num_fitted, fit_failures + len(failures), loss, accuracy)

    def _ask(
        self, task: str, server_round: int, instructions: Any, accept: Callable[[Any], Any]
    ) -> tuple[Results, Failures]:
        dispatch = Dispatch(self.clients, task, self.settings.round_timeout, self.outbound)
        answers = dispatch.run(instructions)
        self.outbound.is_new = False
        self.report.add_traffic(dispatch.traffic)
        return _sort_out(f"round {server_round}: {task}", answers, accept)


def _sort_out(task: str, answers: list[Answer], accept: Callable[[Any], Any]) -> tuple[Results, Failures]:
    """Split the clients' answers into Flower's results, if accepted, and failures; print why they fail."""
    results: Results = []
    failures: Failures = []
    for answer in answers:
        client, result = answer.client, answer.result
        try:
            if result is None:
                raise ValueError(answer.reason)
            if result.status.code != Code.OK:
                raise ValueError(result.status.message)
            results.append((client, accept(result)))
        except ValueError as error:
            failures.append((client, result) if result is not None else ConnectionError(f"{error}"))
            print(f"{task} by {name_of(client)} does not count: {printable(f'{error}')}")
    return results, failures
