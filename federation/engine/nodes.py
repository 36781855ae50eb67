"""The nodes of Flower's engines, as clients of the server: simulated ones, or devices behind a SuperLink.

Questions and answers are those that clients exchange with server.py; here, Flower's messages carry them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from federation.wire.handshake import printable
from federation.wire.messages import read_answer, write_question

from flwr.app import DEFAULT_TTL, Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common import Code, DisconnectRes
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.serverapp import Grid

MESSAGE_TYPES = {"get_properties": "query", "get_parameters": "query", "fit": "train", "evaluate": "evaluate"}
MESSAGE_TIMEOUT = 300  # seconds, without training; for each one, a SuperNode starts a process: a minute on small boards
LOOK_EVERY = 2  # seconds between two looks at who is there
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks for answers
AT_ONCE = 8  # questions in a message to a shared node, as long as there are enough for all nodes
GREET_AGAIN, MOST_PATIENCE = 20, 600  # seconds until a node that was not admitted is greeted again; ever longer


def pack(*parts: bytes) -> RecordDict:
    """Return records that hold these questions or answers; as arrays, because Flower sends large ones in pieces."""
    arrays = {f"{place}": Array("uint8", (len(part),), "bytes", part) for place, part in enumerate(parts)}
    return RecordDict({"bytes": ArrayRecord(arrays)})


def unpack(message: Message) -> list[bytes]:
    """Return what `pack` has packed into a message; raises KeyError if there is nothing."""
    return [array.data for array in message.content.array_records["bytes"].values()]


@dataclass
class Question:
    """A question to a client, and where its answer will be."""

    client_id: int
    task: str
    instruction: Any
    give_up_at: float  # by time.monotonic()
    group_id: str
    answer: Future[Any] = field(default_factory=Future)

    @property
    def seconds_left(self) -> float:
        """How long somebody will wait for the answer."""
        return self.give_up_at - time.monotonic()

    def write(self) -> bytes:
        """Return the question as bytes; raises TimeoutError if nobody waits any more, or whatever cannot be written."""
        if self.seconds_left <= 0:  # others were under way for too long
            raise TimeoutError("there was no time left to ask")
        return write_question(self.task, self.instruction).SerializeToString()

    def read_answer(self, reply: Message, place: int) -> Any:
        """Return the result at a place in a reply; raises ConnectionError if the node has no client to answer."""
        if reply.has_error():
            raise ConnectionError(reply.error.reason)
        result = read_answer(self.task, unpack(reply)[place])
        if self.task == "get_properties" and result.status.code != Code.OK and "nonce" in self.instruction.config:
            raise ConnectionError(result.status.message)  # else it would be admitted, as a plain Flower client
        return result


class UnderWay(NamedTuple):
    """What a message that is under way asks, and of which node."""

    node_id: int
    questions: list[Question]


class NodeProxy(ClientProxy):
    """A node as Flower's strategies and server see a client: each method asks, and waits for the answer."""

    def __init__(self, client_id: int, outbox: deque[Question]) -> None:
        super().__init__(f"{client_id}")
        self.client_id = client_id
        self.outbox = outbox
        self.greet_at, self.patience = 0.0, GREET_AGAIN / 2

    def get_properties(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        try:
            return self._ask("get_properties", ins, MESSAGE_TIMEOUT, group_id)
        finally:
            self.greet_at = time.monotonic() + self.patience

    def get_parameters(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("get_parameters", ins, timeout, group_id)

    def fit(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("fit", ins, timeout, group_id)

    def evaluate(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]  # noqa: D102
        return self._ask("evaluate", ins, timeout, group_id)

    def reconnect(self, ins, timeout, group_id):  # type: ignore[no-untyped-def]
        """Do nothing: an engine's nodes wait for the next run."""
        return DisconnectRes("")

    def _ask(self, task: str, instruction: Any, timeout: float | None, group_id: int | None) -> Any:
        give_up_at = time.monotonic() + (DEFAULT_TTL if timeout is None else timeout)
        question = Question(self.client_id, task, instruction, give_up_at, f"{group_id or 0}")
        self.outbox.append(question)
        return question.answer.result()


class Nodes:
    """The nodes of an engine, each of which is a client: carries the questions to them and brings the answers.

    `told` goes with each question. All this happens in a thread of its own.
    """

    def __init__(self, grid: Grid, told: Mapping[str, Any]) -> None:
        self.grid = grid
        self.told = told
        self.outbox: deque[Question] = deque()
        self.under_way: dict[str, UnderWay] = {}  # by message
        self.proxies: dict[int, NodeProxy] = {}
        self.look_at = 0.0
        self.misfits: set[str] = set()  # reasons why nodes cannot take part, each told once
        self.is_over = threading.Event()

    def start(self, clients: ClientManager) -> None:
        """From now on, register the nodes with `clients`, as they come and go."""
        threading.Thread(target=self._carry, args=(clients,), daemon=True).start()

    def stop(self) -> None:
        """Carry nothing any more."""
        self.is_over.set()

    def _carry(self, clients: ClientManager) -> None:
        pause, trouble = SHORTEST_PAUSE, ""
        while not self.is_over.wait(pause):
            try:
                self._look(clients)
                moved = self._push() | self._pull()
                pause, trouble = SHORTEST_PAUSE if moved else min(1.5 * pause, LONGEST_PAUSE), ""
            except Exception as error:  # whatever the engine's connection raises; it may come back
                pause = LONGEST_PAUSE
                if f"{error}" != trouble:
                    trouble = f"{error}"
                    print(f"the engine does not answer ({type(error).__name__}: {error}): trying again")

    def _look(self, clients: ClientManager) -> None:
        """Notice who has come or gone; greet those again that were not admitted."""
        now = time.monotonic()
        if now < self.look_at:
            return
        self.look_at = now + LOOK_EVERY
        online = self._online()
        for client_id in self.proxies.keys() - online:
            clients.unregister(self.proxies.pop(client_id))
            for message_id in [name for name, sent in self.under_way.items() if sent.node_id == client_id]:
                _fail(self.under_way.pop(message_id).questions, ConnectionError("the node is gone"))
        for client_id in sorted(online):
            proxy = self.proxies.setdefault(client_id, NodeProxy(client_id, self.outbox))
            if not proxy.properties and now >= proxy.greet_at:
                proxy.greet_at, proxy.patience = now + MESSAGE_TIMEOUT, min(2 * proxy.patience, MOST_PATIENCE)
                clients.register(proxy)

    def _online(self) -> set[int]:
        """Return the clients that are there."""
        return {*self.grid.get_node_ids()}

    def _next_node(self) -> tuple[int, int] | None:
        """Return which node to send to next, and how many questions at the most; None: not yet."""
        return self.outbox[0].client_id, 1

    def _told(self, questions: Sequence[Question]) -> Mapping[str, Any]:
        """Return what to tell with these questions."""
        return self.told

    def _push(self) -> bool:
        """Send what waits; return whether anything did."""
        has_sent = False
        while self.outbox and (node := self._next_node()):
            has_sent = True
            self._send(node[0], self._take(node[1]))
        return has_sent

    def _take(self, most: int) -> list[Question]:
        """Take questions of one task from the outbox."""
        taken = [self.outbox.popleft()]
        while self.outbox and len(taken) < most and self.outbox[0].task == taken[0].task:
            taken.append(self.outbox.popleft())
        return taken

    def _send(self, node_id: int, taken: list[Question]) -> None:
        questions: list[Question] = []
        written: list[bytes] = []
        for question in taken:
            try:
                written.append(question.write())
                questions.append(question)
            except Exception as error:  # its time is over, or a strategy of one's own says what cannot be sent
                question.answer.set_exception(error)
        if not questions:
            return
        records = RecordDict({**pack(*written), "told": ConfigRecord({**self._told(questions)})})
        kind, seconds = MESSAGE_TYPES[questions[0].task], min(question.seconds_left for question in questions)
        try:
            message = Message(records, node_id, kind, ttl=seconds, group_id=questions[0].group_id)
            ids = [message_id for message_id in self.grid.push_messages([message]) if message_id]
        except Exception as error:  # whoever waits for the answers has to know
            _fail(questions, error)
            raise
        if ids:
            self.under_way[ids[0]] = UnderWay(node_id, questions)
        else:
            _fail(questions, ConnectionError("the engine does not take messages to this node"))

    def _pull(self) -> bool:
        """Take what has arrived; return whether anything has."""
        replies = [*self.grid.pull_messages([*self.under_way])] if self.under_way else []
        for reply in replies:
            sent = self.under_way.pop(reply.metadata.reply_to_message_id, None)
            for place, question in enumerate(sent.questions if sent else ()):  # not sent: a strange node wrote that
                try:
                    question.answer.set_result(question.read_answer(reply, place))
                except Exception as error:  # whatever stumbles over what a strange node has sent
                    question.answer.set_exception(error)
                    if question.task == "get_properties":
                        self._tell_misfit(question.client_id, printable(f"{error}"))
        return bool(replies)

    def _tell_misfit(self, node_id: int, reason: str) -> None:
        if reason not in self.misfits:  # it is greeted again and again, and others may have the same trouble
            self.misfits.add(reason)
            print(f"node {node_id} cannot take part: {reason}")


class SharedNodes(Nodes):
    """The nodes of a simulation, shared by the clients 0 to `num_clients` - 1: a message says for which it is.

    Each message takes Flower and Ray tens of milliseconds of a processor, in which small clients have trained. So one
    has questions to several clients; to fewer when there are not many left, so that all nodes have something to do.
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
