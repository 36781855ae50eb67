"""Asking many clients at the same time: order, deadline, connections that break, clients that come back."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from importlib import import_module

from federation.client.power import Meter
from federation.client.wrapper import ClientWrapper
from federation.server.client_manager import DeviceClientManager
from federation.server.dispatch import LATER, Dispatch
from federation.wire.handshake import identity_of
from federation.wire.models import DIGEST, HALF_PRECISION, LACKS, UNDERSTOOD, WHOLE, Outbound, size

import pytest
from fakes import MODEL, FakeClient, arrive, fit_result, identity, learner, wait_until
from flwr.client import NumPyClient
from flwr.common import Code, EvaluateIns, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays

NEVER = 30.0  # seconds; a test that waits for that has failed
FIT = "the instruction of a fit"


@pytest.fixture
def clients(monkeypatch) -> DeviceClientManager:
    monkeypatch.setattr(import_module("federation.server.dispatch"), "PAUSE", 0.01)
    return DeviceClientManager(token=None, member=None)


@pytest.fixture
def release():
    """An event for which clients that hang wait; the end of the test sets it."""
    event = threading.Event()
    yield event
    event.set()


def fit(clients, crowd, timeout=NEVER, patience=NEVER, server_round=3):
    """Have the clients fit; return (connection, reason) of each answer, and the seconds it took."""
    started = time.monotonic()
    answers = Dispatch(clients, "fit", server_round, timeout).run([(client, FIT) for client in crowd], patience)
    for answer in answers:
        assert (answer.result is None) == bool(answer.reason)
    return [(answer.client.cid, answer.reason) for answer in answers], time.monotonic() - started


def test_nobody_to_ask(clients):
    assert fit(clients, [])[0] == []


def test_answers_are_sorted_by_cid_whoever_is_first(clients):
    finished = []

    def after(*earlier):
        def fit(ins):
            wait_until(lambda: set(earlier) <= set(finished))  # all are asked at the same time
            return fit_result(MODEL)

        return fit

    crowd = [
        learner(10, fit=after()),
        FakeClient("plain", fit=after("connection of 10")),
        learner(9, fit=after("connection of 10", "plain")),
        learner(2, fit=after("connection of 10", "plain", "connection of 9")),
    ]
    for client in crowd:
        work = client.tasks["fit"]
        client.tasks["fit"] = lambda ins, work=work, name=client.cid: (work(ins), finished.append(name))[0]
    arrive(clients, *crowd)
    answers, _ = fit(clients, crowd)
    assert answers == [("connection of 2", ""), ("connection of 9", ""), ("connection of 10", ""), ("plain", "")]
    assert finished == ["connection of 10", "plain", "connection of 9", "connection of 2"]


def test_what_a_client_is_asked_and_answers(clients):
    arrive(clients, client := learner(4))
    (answer,) = Dispatch(clients, "evaluate", 7, 12.5).run([(client, "an instruction")])
    assert client.calls == [("evaluate", "an instruction", pytest.approx(12.5 + LATER, abs=1), 7)]
    assert (answer.client, answer.result.loss, answer.reason) == (client, 4.0, "")


def test_a_client_is_at_work_until_it_answers(clients):
    seen = []
    client = learner(4, fit=lambda ins: (seen.append(clients.all()), fit_result(MODEL))[1])
    arrive(clients, client)
    fit(clients, [client])
    assert seen == [{}]
    assert list(clients.all()) == ["connection of 4"]


def test_a_deadline(clients, release):
    slow = learner(1, fit=lambda ins: (release.wait(NEVER), fit_result(MODEL))[1])
    crowd = [slow, learner(0), FakeClient("plain", fit=slow.tasks["fit"])]
    arrive(clients, *crowd)
    answers, seconds = fit(clients, crowd, timeout=0.15)
    assert answers == [
        ("connection of 0", ""),
        ("connection of 1", "no answer in time"),
        ("plain", "no answer in time"),
    ]
    assert 0.05 <= seconds < 5
    assert list(clients.all()) == ["connection of 0"]  # the others are still at it
    release.set()
    wait_until(lambda: len(clients.all()) == 3)


def test_a_plain_flower_client_whose_connection_ends_is_not_waited_for(clients):
    def fail(ins):
        raise ConnectionResetError

    crowd = [FakeClient("plain", fit=fail), learner(0)]
    arrive(clients, *crowd)
    answers, seconds = fit(clients, crowd)
    assert answers == [("connection of 0", ""), ("plain", "its connection ended (ConnectionResetError)")]
    assert seconds < 5
    assert "plain" not in clients.all()  # Flower may be about to unregister it


@pytest.mark.parametrize("others", [[], [learner(1)]])
def test_a_client_that_is_lost_and_does_not_come_back(clients, others):
    lost = learner(0, fit=lambda ins: 1 / 0)
    arrive(clients, lost, *others)
    answers, seconds = fit(clients, [lost, *others], patience=0.05)
    assert answers[0] == ("connection of 0", "its connection ended (ZeroDivisionError)")
    assert len(answers) == 1 + len(others)
    assert 0.05 <= seconds < 5


def test_the_deadline_holds_for_those_who_may_come_back_too(clients):
    arrive(clients, lost := learner(0, fit=lambda ins: 1 / 0))
    answers, seconds = fit(clients, [lost], timeout=0.1)
    assert answers == [("connection of 0", "its connection ended (ZeroDivisionError)")]
    assert 0.05 <= seconds < 5


def test_a_client_that_comes_back_is_asked_again(clients):
    new = learner(0, "new")

    def fail(ins):
        threading.Timer(0.02, arrive, [clients, new]).start()
        raise ConnectionResetError

    arrive(clients, old := learner(0, "old", fit=fail), other := learner(1))
    answers, seconds = fit(clients, [old, other])
    assert answers == [("new", ""), ("connection of 1", "")]
    for client in (new, old):
        assert client.calls == [("fit", FIT, pytest.approx(NEVER + LATER, abs=5), 3)]
    assert new.calls[0][2] < old.calls[0][2]  # for both, the time is over at the same moment
    assert seconds < 5


def test_a_client_that_comes_back_is_waited_for_as_long_as_others_are_at_work(clients):
    new, asked_again = learner(0, "new"), threading.Event()

    def fit_again(ins):
        asked_again.set()
        return fit_result(MODEL)

    new.tasks["fit"] = fit_again

    def fail(ins):
        threading.Timer(0.05, arrive, [clients, new]).start()
        raise ConnectionResetError

    old = learner(0, "old", fit=fail)
    other = learner(1, fit=lambda ins: asked_again.wait(NEVER) and fit_result(MODEL))
    arrive(clients, old, other)
    answers, seconds = fit(clients, [old, other], patience=0.01)
    assert answers == [("new", ""), ("connection of 1", "")] and seconds < 5


def wrapped(cid: int, connection: str = "", **changes) -> FakeClient:
    """A client with the real wrapper around what adds one to the model."""

    class Adding(NumPyClient):
        def fit(self, parameters, config):
            return [array + 1 for array in parameters], 1, {}

        def evaluate(self, parameters, config):
            return 0.5, 1, {}

    who = identity(cid, **{"understands": UNDERSTOOD, **changes})
    answer = ClientWrapper(Adding(), who, None, Meter()).answer
    tasks = {task: lambda ins, task=task: answer(task, replace(ins)) for task in ("fit", "evaluate")}
    return FakeClient(connection or f"connection of {cid}", who, **tasks)


def forms(client: FakeClient) -> list[str]:
    """In which forms a client was sent models."""
    return [ins.parameters.tensor_type for task, ins, *_ in client.calls]


@pytest.mark.parametrize(("half_precision", "shortest"), [(False, WHOLE), (True, HALF_PRECISION)])
def test_models_go_out_in_the_shortest_form_that_the_client_understands(clients, half_precision, shortest):
    outbound = Outbound(MODEL, half_precision, is_new=True)
    new, older, plain = wrapped(0), wrapped(1, understands=""), FakeClient("plain", fit=lambda ins: fit_result(MODEL))
    arrive(clients, new, older, plain)
    fits = [(client, FitIns(outbound.whole, {})) for client in (new, older, plain)]
    for is_new, expected in ((True, [shortest]), (False, [DIGEST, shortest])):
        outbound.is_new = is_new
        dispatch = Dispatch(clients, "fit", 1, NEVER, outbound)
        assert [answer.reason for answer in dispatch.run(fits)] == ["", "", ""]
        assert forms(new) == expected and forms(older) == forms(plain) == [WHOLE]
        sent, received = (
            {client.cid: sum(sizes[i] for who, *sizes in dispatch.traffic if who is client) for client in (new, plain)}
            for i in (0, 1)
        )
        assert sent["plain"] == received["plain"] == size(fits[0][1])
        assert sent[new.cid] == sum(size(ins) for _, ins, *_ in new.calls)
        assert (received[new.cid] < received["plain"]) == half_precision
        for client in (new, older, plain):
            client.calls.clear()
        new.tasks = wrapped(0).tasks  # started anew


@pytest.mark.parametrize(
    ("understands", "half_precision", "expected"),
    [
        (HALF_PRECISION, False, WHOLE),
        (HALF_PRECISION, True, HALF_PRECISION),
        (f"{HALF_PRECISION}, something newer", True, HALF_PRECISION),
        (DIGEST, True, WHOLE),
        (f"no {DIGEST}, no {HALF_PRECISION}", True, WHOLE),
    ],
)
def test_a_client_that_forgets_the_model_is_sent_no_digest(clients, understands, half_precision, expected):
    """Such as a node of Flower's engines, which may answer each question in another process."""
    outbound = Outbound(MODEL, half_precision)
    arrive(clients, client := wrapped(0, understands=understands))
    (answer,) = Dispatch(clients, "fit", 1, NEVER, outbound).run([(client, FitIns(outbound.whole, {}))])
    assert forms(client) == [expected] and answer.result.num_examples == 1


def test_a_client_has_the_model_that_it_has_evaluated(clients):
    outbound = Outbound(MODEL, half_precision=False, is_new=True)
    arrive(clients, client := wrapped(0))
    Dispatch(clients, "evaluate", 1, NEVER, outbound).run([(client, EvaluateIns(outbound.whole, {}))])
    outbound.is_new = False
    dispatch = Dispatch(clients, "fit", 2, NEVER, outbound)
    (answer,) = dispatch.run([(client, FitIns(outbound.whole, {}))])
    assert answer.result.num_examples == 1 and forms(client) == [WHOLE, DIGEST]
    assert sum(sent for _, sent, _ in dispatch.traffic) == 32


def test_a_client_that_comes_back_with_its_result_is_not_sent_the_model_again(clients):
    outbound = Outbound(MODEL, half_precision=False, is_new=True)
    old, new = wrapped(0, "old"), wrapped(0, "new")
    new.tasks = {"fit": old.tasks["fit"]}  # the same process

    def fit(ins):
        new.tasks["fit"](ins)
        threading.Timer(0.02, arrive, [clients, new]).start()
        raise ConnectionResetError

    old.tasks = {"fit": fit}
    arrive(clients, old)
    (answer,) = Dispatch(clients, "fit", 1, NEVER, outbound).run([(old, FitIns(outbound.whole, {}))])
    assert answer.client is new and answer.result.num_examples == 1
    assert forms(old) == [WHOLE] and forms(new) == [DIGEST]


def test_a_strategys_own_model_for_a_client_goes_out_as_it_is(clients):
    outbound = Outbound(MODEL, half_precision=True)
    arrive(clients, client := wrapped(0))
    own = FitIns(ndarrays_to_parameters([array * 2 for array in MODEL]), {})
    (answer,) = Dispatch(clients, "fit", 1, NEVER, outbound).run([(client, own)])
    assert forms(client) == [WHOLE]
    assert parameters_to_ndarrays(answer.result.parameters)[1].tolist() == (MODEL[1] * 2 + 1).tolist()


def test_a_client_that_lacks_every_model_is_no_endless_loop(clients):
    outbound = Outbound(MODEL, half_precision=False)
    lacking = FitRes(Status(Code.FIT_NOT_IMPLEMENTED, LACKS), ndarrays_to_parameters([]), 0, {})
    client = learner(0, fit=lambda ins: lacking)
    client.identity = identity(0, understands=UNDERSTOOD)
    arrive(clients, client)
    (answer,) = Dispatch(clients, "fit", 1, NEVER, outbound).run([(client, FitIns(outbound.whole, {}))])
    assert forms(client) == [DIGEST, WHOLE] and answer.result is lacking


def test_a_client_can_be_lost_twice(clients):
    third = learner(0, "third")
    second = learner(0, "second", fit=lambda ins: (arrive(clients, third), 1 / 0))
    first = learner(0, "first", fit=lambda ins: (arrive(clients, second), 1 / 0))
    arrive(clients, first)
    answers, seconds = fit(clients, [first])
    assert answers == [("third", "")] and seconds < 5


def test_a_client_on_a_newer_connection_is_asked_although_nobody_knows_that_the_old_one_is_dead(clients, release):
    old = learner(0, "old", fit=lambda ins: (release.wait(NEVER), fit_result(MODEL))[1])
    new = learner(0, "new")
    arrive(clients, old)
    threading.Timer(0.02, arrive, [clients, new]).start()
    answers, seconds = fit(clients, [old])
    assert answers == [("new", "")] and seconds < 5


@pytest.mark.parametrize("late", ["result", "error"])
def test_a_client_that_was_asked_twice_counts_once(clients, release, late):
    told = threading.Event()

    def old_fit(ins):
        release.wait(NEVER)
        told.set()
        return fit_result(MODEL) if late == "result" else 1 / 0

    def new_fit(ins):
        release.set()  # now the old connection answers after all
        told.wait(NEVER)
        time.sleep(0.03)
        return fit_result(MODEL)

    old, new = learner(0, "old", fit=old_fit), learner(0, "new", fit=new_fit)
    arrive(clients, old)
    threading.Timer(0.02, arrive, [clients, new]).start()
    answers, seconds = fit(clients, [old])
    assert answers == [("new", "")] and seconds < 5


def test_a_client_that_was_started_anew_is_asked_once_more(clients):
    starts = []

    def fail(ins):
        clients.unregister(starts[-1])
        starts.append(learner(0, f"start {len(starts)}", fit=fail))
        starts[-1].identity = identity(0, instance=f"start {len(starts)} of 0")
        arrive(clients, starts[-1])
        raise ConnectionResetError

    starts.append(learner(0, "start 0", fit=fail))
    arrive(clients, starts[0])
    answers, _ = fit(clients, [starts[0]], patience=0.05)
    assert answers == [("start 1", "its connection ended (ConnectionResetError)")]
    assert [len(client.calls) for client in starts] == [1, 1, 0]
    assert identity_of(starts[2]).cid == 0  # it is there for the next round


def test_a_client_that_is_back_when_patience_ends_is_asked_again(clients):
    """Patience ends while the answers of others keep the server from looking for it."""
    new, lost = learner(0, "new"), threading.Event()

    def fail(ins):
        lost.set()
        raise ConnectionResetError

    def arrive_and_answer(ins):
        lost.wait(NEVER)
        arrive(clients, new)
        return fit_result(MODEL)

    old, other = learner(0, "old", fit=fail), learner(1, fit=arrive_and_answer)
    arrive(clients, old, other)
    answers, _ = fit(clients, [old, other], patience=0)
    assert answers == [("new", ""), ("connection of 1", "")]
