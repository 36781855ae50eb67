"""The rounds, without a network: what becomes the model, what is kept, what does not count, when a run cannot go on."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path

from federation.flags import Failure
from federation.results import checkpoint
from federation.results.checkpoint import Checkpoint
from federation.results.report import Report
from federation.results.run_file import read as read_run
from federation.results.tables import read_table
from federation.server.fit_config import FitBound, derive
from federation.server.rounds import STOP_SIGNALS, DeviceServer
from federation.server.strategy import DeviceFedAvg, weighted_average
from federation.wire.handshake import key_of

import numpy as np
import pytest
from fakes import MODEL, OK, FakeClient, arrive, encoded, evaluation, fit_result, identity, learner, run_settings
from flwr.common import Code, FitRes, GetParametersRes, Status, parameters_to_ndarrays
from flwr.server.strategy import FedMedian

SEED = 7  # of run_settings
NO = Status(Code.FIT_NOT_IMPLEMENTED, "RuntimeError: the disk is on\nfire")


class Watched(DeviceFedAvg):
    """Keeps what it is given."""

    def __init__(self, **arguments) -> None:
        super().__init__(
            min_fit_clients=1,
            min_evaluate_clients=1,
            min_available_clients=1,
            on_fit_config_fn=lambda server_round: {"server_round": server_round},
            evaluate_metrics_aggregation_fn=weighted_average,
            **arguments,
        )
        self.given: list[tuple[list[str], list]] = []

    def aggregate_fit(self, server_round, results, failures):
        self.given.append(([client.cid for client, _ in results], failures))
        return super().aggregate_fit(server_round, results, failures)


@pytest.fixture
def make_server(tmp_path):
    """Return a function that makes a server whose results go to `tmp_path`."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def make_server(*clients, strategy=None, resumed=None, **changes):
        changes = {"min_num_clients": len(clients), "resumed": resumed, **changes}
        server = DeviceServer(strategy or Watched(), run_settings(tmp_path, **changes))
        arrive(server.clients, *clients)
        return server

    yield make_server
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(server: DeviceServer) -> DeviceServer:
    server.fit(server.settings.num_rounds, None)
    return server


def rows(folder: Path) -> list[tuple[str, ...]]:
    columns = "round", "clients", "failures"
    return [tuple(row[column] for column in columns) for row in read_table(folder / "rounds.csv")]


def mean(server: DeviceServer) -> float:
    """How far the model is from MODEL, on average over its numbers."""
    return float(np.mean([np.mean(array - original) for array, original in zip(server.checkpoint.model, MODEL)]))


def test_two_rounds(make_server, tmp_path, capsys):
    strategy = Watched()
    clients = [learner(10), learner(9), learner(0)]
    server = run(make_server(*clients, strategy=strategy, num_rounds=2))
    # Each fit gives MODEL plus the cid, from cid + 1 examples.
    assert mean(server) == pytest.approx((10 * 11 + 9 * 10 + 0) / 22, rel=1e-6)
    assert strategy.given == [(["connection of 0", "connection of 9", "connection of 10"], [])] * 2
    assert rows(tmp_path) == [("1", "3", "0"), ("2", "3", "0")]
    assert len(read_table(tmp_path / "clients.csv")) == 6
    assert f"round 2: 3 results and 0 failures, loss {(10 * 11 + 9 * 10) / 22:.4f}" in capsys.readouterr().out
    kept = checkpoint.load(tmp_path)
    assert (kept.round, kept.committed, kept.results, kept.failures, kept.member) == (2, 2, 3, 0, identity(10))
    assert [array.dtype for array in kept.model] == [np.float32, np.float32]
    asked = [[task for task, *_ in client.calls] for client in clients]
    assert asked == [["fit", "evaluate"] * 2, ["fit", "evaluate"] * 2, ["get_parameters", *["fit", "evaluate"] * 2]]
    assert [ins.config for task, ins, *_ in clients[0].calls if task == "fit"] == [
        {"server_round": number, "seed": derive(SEED, number, key_of(clients[0]))} for number in (1, 2)
    ]  # fmt: skip
    assert server.clients.is_fixed


def test_bad_results_do_not_count(make_server, tmp_path, capsys):
    strategy = Watched()
    error = learner(1, fit=lambda ins: FitRes(NO, encoded([]), 0, {}))
    broken = fit_result([MODEL[0] * math.nan, MODEL[1]])
    nan = learner(2, fit=lambda ins: broken, evaluate=lambda ins: evaluation(math.nan))
    gone = FakeClient("plain client", fit=lambda ins: 1 / 0)
    server = run(make_server(error, nan, gone, learner(3), strategy=strategy))
    assert mean(server) == pytest.approx(3)
    ((results, failures),) = strategy.given
    assert results == ["connection of 3"]
    assert [client.cid for client, _ in failures[:2]] == ["connection of 1", "connection of 2"]
    assert isinstance(failures[2], ConnectionError)
    assert rows(tmp_path) == [("1", "1", "4")] and checkpoint.load(tmp_path).failures == 3
    told = capsys.readouterr().out
    for line in (
        "round 1: fit by client 1 on pi1 does not count: RuntimeError: the disk is on fire\n",
        "round 1: fit by client 2 on pi2 does not count: array 0 contains NaN or infinity\n",
        "round 1: fit by plain Flower client plain cl does not count: its connection ended (ZeroDivisionError)\n",
        "round 1: evaluate by client 2 on pi2 does not count: its loss is nan\n",
        "round 1: 1 results and 4 failures, loss 2.3333",
    ):
        assert line in told


FLOWERS = FedMedian(min_fit_clients=1, min_evaluate_clients=1, min_available_clients=1)


def adding(step: object, **tasks) -> FakeClient:
    """A plain Flower client whose first model is whole numbers, and which adds something to each model."""
    return FakeClient(
        f"adds {step}",
        get_parameters=lambda ins: GetParametersRes(OK, encoded([np.zeros(3, np.int32)])),
        fit=lambda ins: fit_result([array + step for array in parameters_to_ndarrays(ins.parameters)]),
        evaluate=lambda ins: evaluation(0.5),
    )


@pytest.mark.parametrize("strategy", [None, FLOWERS])
@pytest.mark.parametrize(
    ("steps", "expected", "dtype"),
    [
        ([np.float64(0.25)], 0.75, "f8"),
        ([np.float32(0.25)], 0.75, "f8"),  # NumPy adds float32 to int32 in float64
        ([np.int32(1), np.float64(1.5)], 3.75, "f8"),
        ([np.int32(2)], 6, "i4"),
        ([np.int64(2)], 6, "i4"),
    ],
)
def test_a_model_of_whole_numbers_moves(make_server, strategy, steps, expected, dtype):
    server = run(make_server(*map(adding, steps), strategy=strategy, num_rounds=3))
    (array,) = server.checkpoint.model
    assert array.dtype == dtype and array.tolist() == [expected] * 3
    assert checkpoint.load(server.report.folder).model[0].dtype == dtype


def test_a_round_without_results_leaves_the_model_and_the_run_goes_on(make_server, tmp_path):
    fits = iter([fit_result(MODEL, 0), fit_result([array + 5 for array in MODEL])])
    server = run(make_server(learner(1, fit=lambda ins: next(fits)), num_rounds=2))
    assert rows(tmp_path) == [("1", "0", "1"), ("2", "1", "0")]
    assert (server.checkpoint.round, server.checkpoint.committed) == (2, 1)
    assert mean(server) == pytest.approx(5)


def test_the_next_client_is_asked_if_the_first_gives_no_initial_model(make_server, capsys):
    nan = GetParametersRes(OK, encoded([MODEL[0] * math.nan]))
    none = GetParametersRes(NO, encoded([]))
    first, second = learner(0, get_parameters=lambda ins: nan), learner(1, get_parameters=lambda ins: none)
    third, last = learner(2), learner(3)
    run(make_server(last, third, second, first))
    asked = [[task for task, *_ in client.calls].count("get_parameters") for client in (first, second, third, last)]
    assert asked == [1, 1, 1, 0]
    told = capsys.readouterr().out
    assert "initial model by client 0 on pi0 does not count: array 0 contains NaN or infinity" in told
    assert "initial model by client 1 on pi1 does not count: RuntimeError: the disk is on fire" in told


def test_nobody_gives_an_initial_model(make_server):
    client = learner(0, get_parameters=lambda ins: GetParametersRes(NO, encoded([])))
    server = make_server(client)
    with pytest.raises(Failure, match="no client sent an initial model"):
        run(server)
    assert len(client.calls) == 1  # not again and again
    assert not server.clients.is_fixed


def test_too_few_clients(make_server, capsys, tmp_path):
    server = make_server(learner(0), min_num_clients=3, wait_timeout=0.05)
    with pytest.raises(Failure, match=r"^only 1 of 3 clients were connected after 0\.05 s \(--wait_timeout\)$"):
        run(server)
    assert "round 1 waits for 3 clients: 2 missing\n" in capsys.readouterr().out
    assert rows(tmp_path) == []


def test_a_central_evaluation(make_server, capsys, tmp_path):
    tested = []

    def evaluate(server_round, arrays, config):
        tested.append((server_round, float(arrays[0][0, 0])))
        return 0.125, {"accuracy": 0.875}

    run(make_server(learner(2), strategy=Watched(evaluate_fn=evaluate)))
    assert tested == [(1, 3.0)]  # the new model
    assert "central loss 0.1250, central accuracy 0.8750" in capsys.readouterr().out


def test_a_resumed_run_does_the_rounds_that_are_missing(make_server, tmp_path):
    kept = Checkpoint([array + 1 for array in MODEL], 2, 1, 1, 0, identity(7))
    Report(tmp_path)
    client, stranger = learner(0), FakeClient("stranger", identity(1, dataset="cifar10"))
    server = run(make_server(client, stranger, num_rounds=3, resumed=kept, min_num_clients=1))
    assert stranger.refusal is not None
    assert [task for task, *_ in client.calls] == ["fit", "evaluate"]
    assert [row[0] for row in rows(tmp_path)] == ["2", "3"]
    assert (server.checkpoint.round, server.checkpoint.committed) == (3, 2)
    (instruction,) = [ins for task, ins, *_ in client.calls if task == "fit"]
    assert instruction.parameters == encoded(kept.model)
    assert server.checkpoint.member == identity(7)


def test_a_run_resumed_after_its_last_round_only_says_goodbye(make_server, tmp_path, capsys):
    Report(tmp_path)
    client = learner(0)
    server = run(make_server(client, num_rounds=2, resumed=Checkpoint(MODEL, 2, 2, 1, 0, identity(0))))
    assert client.calls == []
    server.disconnect_all_clients(None)
    assert [task for task, *_ in client.calls] == ["reconnect"]
    capsys.readouterr()
    server.clients.unregister(client)
    assert capsys.readouterr().out == ""  # no news


def test_a_round_starts_no_sooner_than_so_many_seconds_after_the_one_before(make_server):
    starts = []
    client = learner(0, fit=lambda ins: (starts.append(time.monotonic()), fit_result(MODEL))[1])
    run(make_server(client, num_rounds=3, every=0.2))
    assert len(starts) == 3 and min(np.diff(starts)) > 0.19


def test_seed_seconds_and_run_file(make_server, tmp_path):
    clients = [learner(0), learner(1)]
    server = run(make_server(*clients, num_rounds=2, fit_bound=FitBound(2.5)))
    (ins,) = [ins for task, ins, *_ in clients[0].calls if task == "get_parameters"]
    assert ins.config == {"seed": derive(SEED, "initial model")}  # not of the client: any gives the same model
    given = [ins.config for task, ins, *_ in clients[1].calls if task == "fit"]
    assert [config["fit_seconds"] for config in given] == [2.5, 2.5]
    assert read_run(tmp_path)["seed"] == SEED and read_run(tmp_path)["clients"].keys() == {"0", "1"}
    assert server.orders.fit_seconds == 2.5
