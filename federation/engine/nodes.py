"""The nodes of Flower's engines, as clients of the server: simulated ones, or devices behind a SuperLink.

Questions and answers are those that clients exchange with server.py; here, Flower's messages carry them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Mapping

from federation.engine.records import pack, unpack
from federation.handshake import printable
from federation.messages import read_answer, write_question

from flwr.app import DEFAULT_TTL, ConfigRecord, Message
from flwr.common import Code, DisconnectRes
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.serverapp import Grid

MESSAGE_TYPES = {"get_properties": "query", "get_parameters": "query", "fit": "train", "evaluate": "evaluate"}
MESSAGE_TIMEOUT = 300  # seconds, without training; for each one, a SuperNode starts a process: a minute on small boards
LOOK_EVERY = 2  # seconds between two looks at who is there
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks for answers
AT_ONCE = 2  # messages to a shared node: it has the next one while an answer is on its way
GREET_AGAIN, MOST_PATIENCE = 20, 600  # seconds until a node that was not admitted is greeted again; ever longer


@dataclass
class Question:
    """A question to a client, and where its answer will be."""

    client_id: int
    task: str
    instruction: Any
    give_up_at: float  # by time.monotonic()
    group_id: str
    answer: Future[Any] = field(default_factory=Future)
    node_id: int = 0  # where it was sent


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
        self.under_way: dict[str, Question] = {}  # by message
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
                moved = self._push() + self._pull()
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
            for message_id in [name for name, question in self.under_way.items() if question.client_id == client_id]:
                self.under_way.pop(message_id).answer.set_exception(ConnectionError("the node is gone"))
        for client_id in sorted(online):
            proxy = self.proxies.setdefault(client_id, NodeProxy(client_id, self.outbox))
            if not proxy.properties and now >= proxy.greet_at:
                proxy.greet_at, proxy.patience = now + MESSAGE_TIMEOUT, min(2 * proxy.patience, MOST_PATIENCE)
                clients.register(proxy)

    def _online(self) -> set[int]:
        """Return the clients that are there."""
        return {*self.grid.get_node_ids()}

    def _address(self, client_id: int) -> tuple[int, Mapping[str, Any]] | None:
        """Return to which node a question to a client goes, and what is told with it; None: not yet."""
        return client_id, self.told

    def _push(self) -> int:
        """Send what waits; return how many questions that were."""
        number = 0
        while self.outbox and (address := self._address(self.outbox[0].client_id)):
            question = self.outbox.popleft()
            number += 1
            seconds = question.give_up_at - time.monotonic()
            if seconds <= 0:  # others were under way for too long
                question.answer.set_exception(TimeoutError("there was no time left to ask"))
                continue
            question.node_id, told = address
            try:
                message = _message(question, told, seconds)
                ids = [message_id for message_id in self.grid.push_messages([message]) if message_id]
            except Exception as error:  # whoever waits for the answer has to know
                question.answer.set_exception(error)
                raise
            if ids:
                self.under_way[ids[0]] = question
            else:
                question.answer.set_exception(ConnectionError("the engine does not take messages to this node"))
        return number

    def _pull(self) -> int:
        """Take what has arrived; return how many answers that were."""
        number = 0
        for reply in self.grid.pull_messages([*self.under_way]) if self.under_way else ():
            number += 1
            question = self.under_way.pop(reply.metadata.reply_to_message_id, None)
            if question is None:  # a strange node wrote that
                continue
            try:
                question.answer.set_result(_answer(reply, question))
            except Exception as error:  # whatever stumbles over what a strange node has sent
                question.answer.set_exception(error)
                if question.task == "get_properties":
                    self._tell_misfit(question.client_id, printable(f"{error}"))
        return number

    def _tell_misfit(self, node_id: int, reason: str) -> None:
        if reason not in self.misfits:  # it is greeted again and again, and others may have the same trouble
            self.misfits.add(reason)
            print(f"node {node_id} cannot take part: {reason}")


class SharedNodes(Nodes):
    """The nodes of a simulation, shared by the clients 0 to `num_clients` - 1: each question says for which it is.

    Ten times a second, Flower's simulation compares each node with each message under way. So a few nodes, with few
    messages, serve a thousand clients faster than a thousand nodes would.
    """

    def __init__(self, grid: Grid, told: Mapping[str, Any], num_clients: int) -> None:
        super().__init__(grid, told)
        self.num_clients = num_clients
        self.nodes: list[int] = []

    def _online(self) -> set[int]:
        self.nodes = [*self.grid.get_node_ids()]
        return {*range(self.num_clients)} if self.nodes else set()

    def _address(self, client_id: int) -> tuple[int, Mapping[str, Any]] | None:
        busy = Counter(question.node_id for question in self.under_way.values())
        node_id = min(self.nodes, key=busy.__getitem__)
        if busy[node_id] >= AT_ONCE:
            return None
        return node_id, {**self.told, "partition-id": client_id, "num-partitions": self.num_clients}


def _message(question: Question, told: Mapping[str, Any], seconds: float) -> Message:
    records = pack(write_question(question.task, question.instruction).SerializeToString())
    records["told"] = ConfigRecord({**told})
    task = MESSAGE_TYPES[question.task]
    return Message(records, question.node_id, task, ttl=seconds, group_id=question.group_id)


def _answer(reply: Message, question: Question) -> Any:
    """Return the result in a reply; raises ConnectionError if it says that the node has no client to answer."""
    if reply.has_error():
        raise ConnectionError(reply.error.reason)
    result = read_answer(question.task, unpack(reply))
    if question.task == "get_properties" and result.status.code != Code.OK and "nonce" in question.instruction.config:
        raise ConnectionError(result.status.message)  # else it would be admitted, as a plain Flower client
    return result
