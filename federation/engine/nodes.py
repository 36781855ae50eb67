"""The nodes of Flower's engines, as clients of the server: simulated ones, or devices behind a SuperLink.

Questions and answers are those that clients exchange with server.py; here, Flower's messages carry them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from federation.wire.handshake import printable
from federation.wire.messages import read_answer, write_question

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common import Code, DisconnectRes
from flwr.common.constant import ErrorCode
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.serverapp import Grid

MESSAGE_TYPES = {"get_properties": "query", "get_parameters": "query", "fit": "train", "evaluate": "evaluate"}
MESSAGE_TIMEOUT = 300  # seconds, except for a fit; a SuperNode starts a process for each: a minute on small boards
LOOK_EVERY = 2  # seconds between checks which nodes are online
PAUSE = 0.05  # seconds between checks for answers
AT_ONCE = 8  # questions in a message to a shared node, if there are enough for all nodes
GREET_AGAIN = 60  # seconds until a node that was not admitted is greeted again


def pack(*parts: bytes) -> RecordDict:
    """Pack questions or answers into records, as arrays: Flower sends large arrays in pieces."""
    arrays = {f"{place}": Array("uint8", (len(part),), "bytes", part) for place, part in enumerate(parts)}
    return RecordDict({"bytes": ArrayRecord(arrays)})


def unpack(message: Message) -> list[bytes]:
    """Unpack the questions or answers in a message; raises KeyError if there are none."""
    return [array.data for array in message.content.array_records["bytes"].values()]


@dataclass
class Question:
    """A question to a client, and where its answer will be."""

    client_id: int
    task: str
    instruction: Any
    give_up_at: float  # by time.monotonic()
    answer: Future[Any] = field(default_factory=Future)

    def read_answer(self, reply: Message, place: int) -> Any:
        """Result at a position in a reply; raises ConnectionError if the node has no client to answer."""
        if reply.has_error():
            is_late = reply.error.code in (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
            hint = " Is the clock of its device right? (timedatectl)" if is_late else ""
            raise ConnectionError(f"{reply.error.reason}{hint}")
        result = read_answer(self.task, unpack(reply)[place])
        if self.task == "get_properties" and result.status.code != Code.OK and "nonce" in self.instruction.config:
            raise ConnectionError(result.status.message)  # else it would be admitted, as a plain Flower client
        return result


class UnderWay(NamedTuple):
    """The questions in a message that was sent, and its node."""

    node_id: int
    questions: list[Question]


class NodeProxy(ClientProxy):
    """A node as Flower's strategies and server see a client: each method asks, and waits for the answer."""

    def __init__(self, client_id: int, outbox: deque[Question]) -> None:
        super().__init__(f"{client_id}")
        self.client_id = client_id
        self.outbox = outbox
        self.greet_at = 0.0

    def get_properties(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        try:
            return self._ask("get_properties", ins, MESSAGE_TIMEOUT)
        finally:
            self.greet_at = time.monotonic() + GREET_AGAIN

    def get_parameters(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("get_parameters", ins, timeout)

    def fit(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("fit", ins, timeout)

    def evaluate(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("evaluate", ins, timeout)

    def reconnect(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]
        """Do nothing: an engine's nodes wait for the next run."""
        return DisconnectRes("")

    def _ask(self, task: str, instruction: Any, timeout: float) -> Any:
        question = Question(self.client_id, task, instruction, time.monotonic() + timeout)
        self.outbox.append(question)
        return question.answer.result()


class Nodes:
    """The nodes of an engine, each of which is a client: sends them the questions and collects the answers.

    `told` goes with each question. All this happens in a separate thread.
    """

    def __init__(self, grid: Grid, told: Mapping[str, Any]) -> None:
        self.grid = grid
        self.told = told
        self.outbox: deque[Question] = deque()
        self.under_way: dict[str, UnderWay] = {}  # by message
        self.proxies: dict[int, NodeProxy] = {}
        self.look_at = 0.0
        self.misfits: set[str] = set()  # reasons why nodes cannot take part, each printed once
        self.is_over = threading.Event()

    def start(self, clients: ClientManager) -> None:
        """From now on, register the nodes with `clients`, as they come and go."""
        threading.Thread(target=self._carry, args=(clients,), daemon=True, name="nodes").start()

    def stop(self) -> None:
        """Stop sending and collecting."""
        self.is_over.set()

    def _carry(self, clients: ClientManager) -> None:
        trouble = ""
        while not self.is_over.wait(PAUSE):
            try:
                self._look(clients)
                self._push()
                self._pull()
                trouble = ""
            except Exception as error:  # whatever the engine's connection raises; it may come back
                if f"{error}" != trouble:
                    trouble = f"{error}"
                    print(f"the engine does not answer ({type(error).__name__}: {error}): trying again")

    def _look(self, clients: ClientManager) -> None:
        """Notice nodes that come and go; greet nodes again that were not admitted."""
        now = time.monotonic()
        if now < self.look_at:
            return
        online = self._online()
        self.look_at = now + LOOK_EVERY
        for client_id in self.proxies.keys() - online:
            clients.unregister(self.proxies.pop(client_id))
            for message_id in [name for name, sent in self.under_way.items() if sent.node_id == client_id]:
                _fail(self.under_way.pop(message_id).questions, ConnectionError("the node is gone"))
        for client_id in sorted(online):
            proxy = self.proxies.setdefault(client_id, NodeProxy(client_id, self.outbox))
            if not proxy.properties and now >= proxy.greet_at:
                proxy.greet_at = math.inf  # until this greeting has ended
                clients.register(proxy)

    def _online(self) -> set[int]:
        """The clients that are online."""
        return {*self.grid.get_node_ids()}

    def _next_node(self) -> tuple[int, int] | None:
        """The next node to send to, and the most questions for it; None: wait."""
        return self.outbox[0].client_id, 1

    def _told(self, questions: Sequence[Question]) -> Mapping[str, Any]:
        """The settings to send with these questions."""
        return self.told

    def _push(self) -> None:
        """Send the waiting questions, those of one task in one message."""
        while self.outbox and (node := self._next_node()):
            node_id, most = node
            questions = [self.outbox.popleft()]
            while self.outbox and len(questions) < most and self.outbox[0].task == questions[0].task:
                questions.append(self.outbox.popleft())
            try:
                self._send(node_id, questions)
            except Exception as error:  # no time is left, a strategy's value cannot be sent, the engine is unreachable
                _fail(questions, error)

    def _send(self, node_id: int, questions: list[Question]) -> None:
        written = [write_question(each.task, each.instruction).SerializeToString() for each in questions]
        records = RecordDict({**pack(*written), "told": ConfigRecord({**self._told(questions)})})
        seconds = min(question.give_up_at for question in questions) - time.monotonic()
        message = Message(records, node_id, MESSAGE_TYPES[questions[0].task], ttl=seconds)
        (message_id,) = self.grid.push_messages([message])
        if not message_id:
            raise ConnectionError("the engine does not accept messages for this node")
        self.under_way[message_id] = UnderWay(node_id, questions)

    def _pull(self) -> None:
        """Take the replies that have arrived."""
        for reply in self.grid.pull_messages([*self.under_way]) if self.under_way else ():
            sent = self.under_way.pop(reply.metadata.reply_to_message_id, None)
            for place, question in enumerate(sent.questions if sent else ()):  # not sent: from an unknown node
                try:
                    question.answer.set_result(question.read_answer(reply, place))
                except Exception as error:  # whatever a malformed reply causes
                    question.answer.set_exception(error)
                    if question.task == "get_properties":
                        self._tell_misfit(question.client_id, printable(f"{error}"))

    def _tell_misfit(self, node_id: int, reason: str) -> None:
        if reason not in self.misfits:  # it is greeted again and again, and others may have the same problem
            self.misfits.add(reason)
            print(f"node {node_id} cannot take part: {reason}")


class SharedNodes(Nodes):
    """The nodes of a simulation, shared by the clients 0 to `num_clients` - 1: a message says for whom it is.

    Each message costs Flower and Ray tens of milliseconds, in which a small client could train. So a message has
    questions to several clients, but to fewer when few are left, so that all nodes have something to do.
    """

    def __init__(self, grid: Grid, told: Mapping[str, Any], num_clients: int) -> None:
        super().__init__(grid, told)
        self.num_clients = num_clients
        self.nodes: list[int] = []

    def _online(self) -> set[int]:
        self.nodes = [*self.grid.get_node_ids()]
        return {*range(self.num_clients)} if self.nodes else set()

    def _next_node(self) -> tuple[int, int] | None:
        busy = {sent.node_id for sent in self.under_way.values()}
        idle = [node_id for node_id in self.nodes if node_id not in busy]
        return (idle[0], max(1, min(AT_ONCE, len(self.outbox) // len(self.nodes)))) if idle else None

    def _told(self, questions: Sequence[Question]) -> Mapping[str, Any]:
        cids = [question.client_id for question in questions]
        return {**self.told, "partition-ids": cids, "num-partitions": self.num_clients}


def _fail(questions: Iterable[Question], error: Exception) -> None:
    for question in questions:
        question.answer.set_exception(error)
