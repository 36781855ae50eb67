"""The rounds of federated learning: sample, train, check, average, keep, evaluate, with a bound on every wait."""

from __future__ import annotations

import argparse
import signal
import time
from typing import Any, Callable

from federation import checkpoint
from federation.admission import printable
from federation.clients import Clients, name_of, number_of
from federation.questions import Answers, ask
from federation.report import Report
from federation.strategy import decode, fault_in_evaluation, fault_in_fit, fault_in_model

from flwr.common import Code, GetParametersIns, NDArrays, Parameters, ReconnectIns, ndarrays_to_parameters
from flwr.server import Server
from flwr.server.client_proxy import ClientProxy
from flwr.server.history import History
from flwr.server.strategy import Strategy

STOP_SIGNALS = signal.SIGINT, signal.SIGTERM
INITIAL_MODEL_TIMEOUT = 120  # seconds in which a client has to send its model; then another one is asked
GOODBYE_TIMEOUT = 2  # seconds in which the clients have to hear that the run is over
COME_BACK_TIMEOUT = 45  # seconds in which clients that have lost their server find the next one


class NoClients(Exception):
    """Too few clients were there for too long."""


class DeviceServer(Server):
    """Flower's server with a loop over the rounds of its own.

    It works with any strategy of Flower, and gives it sound results only, sorted by the clients' numbers. `about`
    tells about the last checkpoint (see `checkpoint.NOTHING`), `model` holds its arrays.
    """

    def __init__(self, strategy: Strategy, args: argparse.Namespace, report: Report) -> None:
        arrays, self.about = args.start
        self.clients = Clients(args.token, self.about["federation"])
        super().__init__(client_manager=self.clients, strategy=strategy)
        self._set_model(arrays)
        self.args = args
        self.report = report

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run the rounds. Flower calls this once clients can connect.

        Raises NoClients, OSError if the results cannot be written, KeyboardInterrupt at Ctrl-C and SIGTERM.
        """
        for number in STOP_SIGNALS:  # here, because start_server has just set handlers that exit with code 0
            signal.signal(number, signal.default_int_handler)
        first_round = self.about["round"] + 1
        for server_round in range(first_round, num_rounds + 1):
            self._wait_for_clients(server_round)
            if not self.model:
                self._set_model(decode(self._initial_parameters()))
                self._wait_for_clients(server_round)  # if one has left over that
            self.clients.is_fixed = True
            self.report.start_round(server_round)
            num_results, num_failures = self._train(server_round)
            self._evaluate(server_round, num_results, num_failures)
        if first_round > num_rounds:  # resumed after its last round: only the clients do not know yet
            self.clients.wait_for(self.args.min_num_clients, COME_BACK_TIMEOUT)
        return History(), 0.0

    def disconnect_all_clients(self, timeout: float | None) -> None:
        """Tell the clients that the run is over. Flower calls this after `fit`."""
        self.clients.run_is_over = True
        goodbyes = [(client, ReconnectIns(seconds=None)) for client in self.clients.all().values()]
        ask(self.clients, "reconnect", goodbyes, 0, GOODBYE_TIMEOUT, patience=0)

    def _set_model(self, arrays: NDArrays) -> None:
        self.model = arrays
        self.parameters = ndarrays_to_parameters(arrays)  # as Flower's strategies and messages want it

    def _wait_for_clients(self, server_round: int) -> None:
        wanted = self.args.min_num_clients
        missing = wanted - self.clients.num_available()
        if missing > 0:
            print(f"round {server_round} waits for {wanted} clients: {missing} missing", flush=True)
            if not self.clients.wait_for(wanted, self.args.wait_timeout):
                raise NoClients(f"there were no {wanted} clients for {self.args.wait_timeout:g} s (--wait_timeout)")

    def _initial_parameters(self) -> Parameters:
        """Return the strategy's initial model, or else that of the client with the lowest number that can give one."""
        parameters = self.strategy.initialize_parameters(self.clients)
        asked: set[str] = set()
        give_up_at = time.monotonic() + self.args.wait_timeout
        while parameters is None:
            candidates = [client for client in self.clients.all().values() if client.cid not in asked]
            if candidates:
                client = min(candidates, key=number_of)
                asked.add(client.cid)
                question = [(client, GetParametersIns({}))]
                answers = ask(self.clients, "get_parameters", question, 0, INITIAL_MODEL_TIMEOUT)
                results, _ = self._sort_out("initial model", answers, lambda result: fault_in_model(result.parameters))
                parameters = results[0][1].parameters if results else None
            elif time.monotonic() < give_up_at:
                time.sleep(0.5)
            else:
                raise NoClients(f"no client gave an initial model for {self.args.wait_timeout:g} s (--wait_timeout)")
        return parameters

    def _train(self, server_round: int) -> tuple[int, int]:
        """Have clients train and keep the new global model; return the numbers of results and failures."""
        instructions = self.strategy.configure_fit(server_round, self.parameters, self.clients)
        answers = self._ask("fit", instructions, server_round)
        results, failures = self._sort_out(
            f"round {server_round}: fit", answers, lambda result: fault_in_fit(result, self.model)
        )
        parameters, _ = self.strategy.aggregate_fit(server_round, results, failures)
        if parameters is not None:
            averages = decode(parameters)
            self._set_model([new.astype(old.dtype, copy=False) for new, old in zip(averages, self.model)])
            about = {
                "round": server_round,
                "committed": self.about["committed"] + 1,
                "clients": len(results),
                "failures": len(failures),
                "federation": self.clients.federation,
            }
            checkpoint.save(self.report.folder, self.model, about)
            self.about = about
        for client, result in results:
            self.report.add_fit(client, result)
        return len(results), len(failures)

    def _evaluate(self, server_round: int, num_fitted: int, fit_failures: int) -> None:
        """Have the global model tested, here if the strategy can and by clients, which ends the round."""
        central = self.strategy.evaluate(server_round, self.parameters)
        if central is not None:
            self.report.add_central_evaluation(loss=central[0], accuracy=central[1].get("accuracy"))
        instructions = self.strategy.configure_evaluate(server_round, self.parameters, self.clients)
        answers = self._ask("evaluate", instructions, server_round)
        results, failures = self._sort_out(f"round {server_round}: evaluate", answers, fault_in_evaluation)
        loss, metrics = self.strategy.aggregate_evaluate(server_round, results, failures)
        for client, result in results:
            self.report.add_evaluation(client, result)
        self.report.end_round(num_fitted, fit_failures + len(failures), loss, metrics.get("accuracy"))

    def _ask(self, task: str, instructions: list[tuple[ClientProxy, Any]], server_round: int) -> Answers:
        return ask(self.clients, task, instructions, server_round, self.args.round_timeout)

    def _sort_out(
        self, task: str, answers: Answers, fault_in: Callable[[Any], str | None]
    ) -> tuple[list[tuple[ClientProxy, Any]], list[tuple[ClientProxy, Any] | BaseException]]:
        """Split the clients' answers into Flower's results and failures; print the reason of each failure."""
        results, failures = [], []
        for client, answer in answers:
            if answer is None:
                reason, failure = "no answer in time", TimeoutError()
            elif isinstance(answer, Exception):
                reason, failure = f"its connection ended ({type(answer).__name__})", answer
            elif answer.status.code != Code.OK:
                reason, failure = answer.status.message, (client, answer)
            else:
                reason, failure = fault_in(answer), (client, answer)
            if reason is None:
                results.append((client, answer))
            else:
                failures.append(failure)
                print(f"{task} by {name_of(client)} does not count: {printable(reason)}", flush=True)
        return results, failures
