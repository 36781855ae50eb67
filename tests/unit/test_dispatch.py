"""Asking many clients at the same time: order, deadline, connections that break, clients that come back."""

from __future__ import annotations

import threading
import time

from federation.client.power import Meter
from federation.client.threads import Threads
from federation.client.wrapper import ClientWrapper
from federation.server import dispatch as dispatching
from federation.server.client_manager import DeviceClientManager
from federation.server.dispatch import LATER, Dispatch
from federation.wire.messages import failure
from federation.wire.models import DIGEST, HALF_PRECISION, LACKS_MODEL, WHOLE, Outbound, size

import pytest
from fakes import MODEL, FakeClient, arrive, fit_result, identity, learner, wait_until
from flwr.client import NumPyClient
from flwr.common import FitIns

NEVER = 30.0  # seconds; a test that waits for that has failed
FIT = "the instruction of a fit"


@pytest.fixture
def clients(monkeypatch) -> DeviceClientManager:
    monkeypatch.setattr(dispatching, "PAUSE", 0.01)
    return DeviceClientManager()


@pytest.fixture
def release():
    """An event for which clients that hang wait; the end of the test sets it."""
    event = threading.Event()
    yield event
    event.set()


def fit(clients, crowd, timeout=NEVER, patience=NEVER):
    """Have the clients fit; return (connection, reason) of each answer, and the seconds it took."""
    started = time.monotonic()
    answers = Dispatch(clients, "fit", timeout).run([(client, FIT) for client in crowd], patience)
    for answer in answers:
        assert (answer.result is None) == bool(answer.reason)
    return [(answer.client.cid, answer.reason) for answer in answers], time.monotonic() - started


def ends(*afterwards):
    """A fit in which the connection ends; `afterwards`, a function and its arguments, is called a little later."""

    def fit(ins):
        if afterwards:
            threading.Timer(0.02, afterwards[0], afterwards[1:]).start()
        raise ConnectionResetError

    return fit


ENDED = "its connection ended (ConnectionResetError)"


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
    assert fit(clients, [])[0] == []


def test_what_a_client_is_asked_and_answers(clients):
    seen = []
    client = learner(4, fit=lambda ins: (seen.append(clients.all()), fit_result(MODEL, 7))[1])
    arrive(clients, client)
    (answer,) = Dispatch(clients, "fit", 12.5).run([(client, FIT)])
    assert client.calls == [("fit", FIT, pytest.approx(12.5 + LATER, abs=1), None)]
    assert (answer.client, answer.result.num_examples, answer.reason) == (client, 7, "")
    assert seen == [{}] and list(clients.all()) == ["connection of 4"]  # at work until it has answered


def test_a_deadline(clients, release):
    slow = learner(1, fit=lambda ins: (release.wait(NEVER), fit_result(MODEL))[1])
    crowd = [slow, learner(0), learner(2, fit=ends()), FakeClient("plain", fit=slow.tasks["fit"])]
    arrive(clients, *crowd)
    answers, seconds = fit(clients, crowd, timeout=0.15)
    late = "no answer in time"
    assert [reason for _, reason in answers] == ["", late, ENDED, late] and 0.05 <= seconds < 5
    assert "connection of 1" not in clients.all()  # still at it
    release.set()
    wait_until(lambda: "connection of 1" in clients.all())


@pytest.mark.parametrize("others", [[], [learner(1)]])
def test_a_client_that_is_lost_and_does_not_come_back(clients, others):
    arrive(clients, lost := learner(0, fit=ends()), *others)
    answers, seconds = fit(clients, [lost, *others], patience=0.05)
    assert answers[0] == ("connection of 0", ENDED) and len(answers) == 1 + len(others)
    assert 0.05 <= seconds < 5


def test_a_client_that_comes_back_is_asked_again_until_the_same_moment(clients):
    new = learner(0, "new")
    arrive(clients, old := learner(0, "old", fit=ends(arrive, clients, new)), other := learner(1))
    answers, seconds = fit(clients, [old, other])
    assert answers == [("new", ""), ("connection of 1", "")] and seconds < 5
    for client in (new, old):
        assert client.calls == [("fit", FIT, pytest.approx(NEVER + LATER, abs=5), None)]
    assert new.calls[0][2] < old.calls[0][2]  # seconds: for both, the time is over at the same moment


@pytest.mark.parametrize("late", ["nothing", "result", "error"])
def test_a_client_on_a_newer_connection_is_asked_and_counts_once(clients, release, late):
    """Although nobody knows that the old connection is dead, and should it still bring an answer."""
    told = threading.Event()

    def old_fit(ins):
        release.wait(NEVER)
        told.set()
        return 1 / 0 if late == "error" else fit_result(MODEL)

    def new_fit(ins):
        if late != "nothing":
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

    arrive(clients, first := learner(0, "start 0", fit=fail))
    starts.append(first)
    assert fit(clients, [first], patience=0.05)[0] == [("start 1", ENDED)]
    assert [len(client.calls) for client in starts] == [1, 1, 0]  # the last is there for the next round


def wrapped(cid: int, connection: str = "", keeps_model: bool = True) -> FakeClient:
    """A client with the real wrapper around what adds one to the model."""

    class Adding(NumPyClient):
        def fit(self, parameters, config):
            return [array + 1 for array in parameters], 1, {}

        def evaluate(self, parameters, config):
            return 0.5, 1, {}

    who = identity(cid, keeps_model=keeps_model)
    answer = ClientWrapper(Adding(), who, None, Meter(), Threads()).answer
    tasks = {task: lambda ins, task=task: answer(task, ins) for task in ("fit", "evaluate")}
    return FakeClient(connection or f"connection of {cid}", who, **tasks)


def forms(client: FakeClient) -> list[str]:
    """In which forms a client was sent models."""
    return [ins.parameters.tensor_type for task, ins, *_ in client.calls]


@pytest.mark.parametrize(("half_precision", "shortest"), [(False, WHOLE), (True, HALF_PRECISION)])
@pytest.mark.parametrize("is_new", [False, True])
def test_models_go_out_in_the_shortest_form_for_each_client(clients, half_precision, shortest, is_new):
    outbound = Outbound(MODEL, half_precision, is_new)
    new, node, plain = wrapped(0), wrapped(1, keeps_model=False), FakeClient("p", fit=lambda ins: fit_result(MODEL))
    arrive(clients, new, node, plain)
    dispatch = Dispatch(clients, "fit", NEVER, outbound)
    answers = dispatch.run([(client, FitIns(outbound.whole, {})) for client in (new, node, plain)])
    assert [answer.result.num_examples for answer in answers] == [1, 1, 1]
    assert forms(new) == ([shortest] if is_new else [DIGEST, shortest])
    assert forms(node) == [shortest] and forms(plain) == [WHOLE]
    sent, received = (
        {client.cid: sum(sizes[i] for who, *sizes in dispatch.traffic if who is client) for client in (new, plain)}
        for i in (0, 1)
    )
    assert sent["p"] == received["p"] == size(FitIns(outbound.whole, {}))
    assert sent[new.cid] == sum(size(ins) for _, ins, *_ in new.calls)
    assert (received[new.cid] < received["p"]) == half_precision


def test_a_client_that_lacks_every_model_is_no_endless_loop(clients):
    outbound = Outbound(MODEL, half_precision=False)
    lacking = failure("fit", "", LACKS_MODEL)
    client = FakeClient("one", identity(0, keeps_model=True), fit=lambda ins: lacking)
    arrive(clients, client)
    (answer,) = Dispatch(clients, "fit", NEVER, outbound).run([(client, FitIns(outbound.whole, {}))])
    assert forms(client) == [DIGEST, WHOLE] and answer.result is lacking
