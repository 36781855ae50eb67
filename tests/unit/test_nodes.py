"""The nodes of Flower's engines as the server's clients: questions to them, answers, and what goes wrong between."""

from __future__ import annotations

import threading
import types
from concurrent.futures import Future
from typing import Any, Callable

from federation.engine import nodes as module
from federation.engine.nodes import AT_ONCE, Nodes, SharedNodes, pack, unpack
from federation.server.client_manager import DeviceClientManager
from federation.wire.handshake import identity_of
from federation.wire.messages import failure, read_question, write_answer

import pytest
from engines import FakeGrid, Node, SharedNode, SilentNode
from fakes import MODEL, TASKS, encoded, fit_result, identity, wait_until
from flwr.app import Message
from flwr.common import Code, FitIns
from flwr.common.constant import ErrorCode
from flwr.proto.transport_pb2 import ServerMessage

NEVER = 30.0  # seconds; a test that waits for that has failed
TOLD = {"script": "client_x", "dataset": "mnist", "alpha": 0.3}
FIT = FitIns(encoded(MODEL), {"server_round": 1})


@pytest.fixture
def clients() -> DeviceClientManager:
    return DeviceClientManager()


@pytest.fixture
def clock(monkeypatch):
    """The time by which `Nodes` goes, which a test moves on; its pauses are short."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    for name, seconds in {"LOOK_EVERY": 0, "PAUSE": 0.001}.items():
        monkeypatch.setattr(module, name, seconds)
    return clock


@pytest.fixture
def connect(clock, clients):
    """Return a function that has `Nodes` carry between nodes, by their ids, and the clients."""
    started = []

    def connect(nodes: dict[int, Node], num_clients: int | None = None) -> FakeGrid:
        grid = FakeGrid(nodes)
        started.append(Nodes(grid, TOLD) if num_clients is None else SharedNodes(grid, TOLD, num_clients))
        started[-1].start(clients)
        return grid

    yield connect
    for nodes in started:
        nodes.stop()
    join("nodes")  # before the clock is the real one again, by which everybody is to be greeted


def join(name: str) -> None:
    """Wait until the threads whose names begin so have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(10)
            assert not thread.is_alive()


def settle(grid: FakeGrid) -> None:
    """Wait until whatever is to happen at this time has happened."""
    looks = grid.looks
    wait_until(lambda: grid.looks > looks + 3)  # whoever is to be greeted is being greeted
    join("greeting")


def proxies(clients: DeviceClientManager) -> dict:
    return {int(name): proxy for name, proxy in clients.all().items()}


def begin(call: Callable[..., Any], *arguments: Any) -> Future:
    """Call what may wait for good in a thread that nobody has to wait for; a test gives its result ten seconds."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def ask(proxy, task: str = "fit", instruction: Any = None, seconds: float | None = NEVER) -> Future:
    return begin(getattr(proxy, task), instruction or TASKS[task][0], seconds, 3)


def reason(asked: Future) -> str:
    """The error of a question, which must have one."""
    error = asked.exception(10)
    return f"{type(error).__name__}: {error}"


def is_well(proxy) -> bool:
    return ask(proxy).result(10).status.code == Code.OK


def greetings(grid: FakeGrid) -> int:
    asked = [read_question(ServerMessage.FromString(part)) for message in grid.pushed for part in unpack(message)]
    return sum(task == "get_properties" and "nonce" in ins.config for task, ins in asked)


def test_nodes_are_greeted_and_admitted_with_their_cids(connect, clients, capsys):
    connect({77: Node(identity(4)), 99: Node(identity(1))})
    assert clients.wait_for(2, 10)
    assert {name: identity_of(proxy) for name, proxy in proxies(clients).items()} == {77: identity(4), 99: identity(1)}
    assert sorted(clients.by_cid()) == [1, 4]
    wait_until(lambda: "client 4 on pi4 has joined" in capsys.readouterr().out)


@pytest.mark.parametrize("task", ["get_parameters", "fit", "evaluate"])
def test_questions_reach_the_node_and_answers_come_back(connect, clients, task):
    instruction, result = TASKS[task]
    other, node = Node(identity(0)), Node(identity(4), **{task: lambda ins: result})
    grid = connect({11: other, 77: node})
    assert clients.wait_for(2, 10)
    assert ask(proxies(clients)[77], task, seconds=12.5).result(10) == result
    assert node.asked[-1] == (task, instruction)
    assert [task for task, _ in other.asked] == ["get_properties"]
    sent = grid.pushed[-1]
    assert {**sent.content["told"]} == TOLD
    kind = {"get_parameters": "query", "fit": "train", "evaluate": "evaluate"}[task]
    assert (sent.metadata.message_type, sent.metadata.ttl) == (kind, 12.5)


def test_a_message_has_questions_to_several_clients_as_long_as_there_are_many(connect, clients):
    nodes = {number: SharedNode(identity(0)) for number in (70, 71)}
    nodes[70].tasks["fit"] = nodes[71].tasks["fit"] = lambda ins: fit_result(MODEL, ins.config["examples"])
    grid = connect(nodes, num_clients=4 * AT_ONCE + 2)
    assert clients.wait_for(4 * AT_ONCE + 2, 10)
    for node in nodes.values():
        node.may_answer.clear()
    *others, first, second = clients.all().values()
    for proxy in (first, second):
        ask(proxy, "evaluate")
    wait_until(lambda: len(grid.under_way) == 2)
    asked = []
    for examples, proxy in enumerate(others):
        asked.append(ask(proxy, "fit", FitIns(encoded(MODEL), {"examples": examples})))
    settle(grid)
    for node in nodes.values():
        node.may_answer.set()
    assert [question.result(10).num_examples for question in asked] == [*range(4 * AT_ONCE)]
    sizes = [len(unpack(message)) for message in grid.pushed if message.metadata.message_type == "train"]
    assert all(len({*message.content["told"]["partition-ids"]}) == len(unpack(message)) for message in grid.pushed)
    assert grid.most_under_way == 2  # one at each node
    assert max(sizes) == AT_ONCE and sizes[-1] == 1 and sizes == sorted(sizes, reverse=True)


def test_a_node_that_vanishes_fails_its_question_and_is_unregistered(connect, clients, capsys):
    node, other = Node(identity(4)), Node(identity(5))
    grid = connect({77: node, 78: other})
    assert clients.wait_for(2, 10)
    for silent in (node, other):
        silent.may_answer.clear()
    gone = ask(proxies(clients)[77])
    stays = ask(proxies(clients)[78])
    wait_until(lambda: len(grid.under_way) == 2)
    del grid.nodes[77]
    assert reason(gone) == "ConnectionError: the node is gone"
    other.may_answer.set()
    assert stays.result(10).status.code == Code.OK
    wait_until(lambda: list(clients.all()) == ["78"])
    assert "client 4 on pi4 has left, 1 now" in capsys.readouterr().out
    grid.nodes[77] = Node(identity(4))  # and comes back
    assert clients.wait_for(2, 10)


class StrangeNode(Node):
    """A node that, once it is admitted, answers a fit strangely."""

    def __init__(self, make_reply) -> None:
        super().__init__(identity(4))
        self.make_reply = make_reply

    def reply(self, message):
        return self.make_reply(message) if message.metadata.message_type == "train" else super().reply(message)


def in_bytes(task: str) -> bytes:
    return write_answer(task, TASKS[task][1]).SerializeToString()


STRANGE = {
    "another task's answer": (
        lambda message: Message(pack(in_bytes("evaluate")), reply_to=message),
        "ValueError: its reply is not a reply to fit",
    ),
    "noise": (lambda message: Message(pack(b"\xff\xff\xff\xff"), reply_to=message), "DecodeError"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_reply_is_an_error_of_its_question_only(connect, clients, kind):
    make_reply, expected = STRANGE[kind]
    nodes = {77: StrangeNode(make_reply), 78: Node(identity(5))}
    grid = connect(nodes)
    assert clients.wait_for(2, 10)
    for node in nodes.values():
        node.may_answer.clear()
    strange = ask(proxies(clients)[77])
    sound = ask(proxies(clients)[78])
    wait_until(lambda: len(grid.under_way) == 2)
    for node in nodes.values():
        node.may_answer.set()  # both come at the same time
    assert reason(strange).startswith(expected)
    assert sound.result(10).status.code == Code.OK
    assert sorted(proxies(clients)) == [77, 78]


def test_an_engine_that_is_away_for_a_while_is_survived_and_that_is_told_once(connect, clients, capsys):
    grid = connect({77: Node(identity(4))})
    assert clients.wait_for(1, 10)
    settle(grid)
    capsys.readouterr()
    grid.trouble = OSError("nobody\x1b is there")
    settle(grid)
    waiting = ask(proxies(clients)[77])
    settle(grid)
    grid.trouble = None
    assert waiting.result(10).status.code == Code.OK
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert told.startswith("the engine does not answer (OSError: nobody") and told.endswith("): trying again\n")
    grid.trouble = OSError("nobody is there")
    settle(grid)
    assert capsys.readouterr().out.count("trying again") == 1  # it is news again


def test_a_question_that_cannot_be_written_harms_no_other(connect, clients):
    connect({77: Node(identity(4))})
    assert clients.wait_for(1, 10)
    odd = FitIns(encoded(MODEL), {"sizes": [1, 2]})  # of a strategy of one's own
    assert reason(ask(proxies(clients)[77], "fit", odd)).startswith("ValueError: Accepted types")
    assert is_well(proxies(clients)[77])


def test_a_node_that_is_refused_is_greeted_again_each_minute(connect, clients, clock, capsys):
    grid = connect({77: Node(identity(4)), 78: Node(identity(5))})
    assert clients.wait_for(2, 10)
    grid.nodes[79] = Node(identity(4, instance="another device"))
    settle(grid)
    assert "client 4 on pi4 is refused: its --cid is taken by client 4 on pi4" in capsys.readouterr().out
    for seconds, number in ((50, 3), (10, 4), (60, 5)):
        clock.now += seconds
        settle(grid)
        assert greetings(grid) == number
    told = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("refused by the server")]
    assert told == []  # once is enough; what is left out is what the node tells at its end
    del grid.nodes[77]
    wait_until(lambda: sorted(proxies(clients)) == [78])
    clock.now += 60
    wait_until(lambda: sorted(proxies(clients)) == [78, 79])


class LateNode(SilentNode):
    """A node whose clock is wrong: the SuperLink answers for it."""

    error = "Error: Reply Message Unavailable - The reply message has expired."
    code = ErrorCode.REPLY_MESSAGE_UNAVAILABLE


class HelplessNode(Node):
    """A node whose app works, but has no client to answer."""

    def _answer(self, task, instruction):
        return failure(task, "its --node-config has no 'partition-id'")


@pytest.mark.parametrize("kind", ["no client", "no app", "a wrong clock"])
def test_a_node_that_cannot_be_a_client_is_none_and_that_is_told_once(connect, clients, clock, capsys, kind):
    wrong = {"no client": HelplessNode, "no app": SilentNode, "a wrong clock": LateNode}[kind]
    grid = connect({77: wrong(identity(4)), 78: wrong(identity(5)), 79: Node(identity(6))})
    assert clients.wait_for(1, 10)
    settle(grid)
    clock.now += 60
    settle(grid)
    assert greetings(grid) == 5
    assert list(clients.all()) == ["79"]
    told = [line for line in capsys.readouterr().out.splitlines() if "joined" not in line]
    expected = {
        "no client": "cannot take part: its --node-config has no 'partition-id'",
        "no app": "cannot take part: the app cannot be loaded",
        "a wrong clock": f"cannot take part: {LateNode.error} Is the clock of its device right? (timedatectl)",
    }
    assert len(told) == 1 and told[0] in (f"node 77 {expected[kind]}", f"node 78 {expected[kind]}")
