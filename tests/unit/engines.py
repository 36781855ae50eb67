"""One of Flower's engines that exists in this process only: its grid, and nodes that answer as told."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import Any, Callable, Iterable

from federation.engine.nodes import pack, unpack
from federation.wire import handshake
from federation.wire.handshake import Identity
from federation.wire.messages import respond

from fakes import MODEL, OK, encoded, evaluation, fit_result
from flwr.app import Error, Message
from flwr.common import GetParametersRes, GetPropertiesRes
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # else Flower makes no messages


class Node:
    """A node whose client has an identity; `tasks` are what it answers, by the name of the task."""

    def __init__(self, identity: Identity, **tasks: Callable[[Any], Any]) -> None:
        self.identity = identity
        self.tasks = {
            "get_properties": lambda ins: GetPropertiesRes(OK, handshake.answer(ins.config, self.identity, None)),
            "get_parameters": lambda ins: GetParametersRes(OK, encoded(MODEL)),
            "fit": lambda ins: fit_result(MODEL),
            "evaluate": lambda ins: evaluation(0.5),
            **tasks,
        }
        self.asked: list[tuple[str, Any]] = []
        self.may_answer = threading.Event()  # until it is set, questions to this node are under way
        self.may_answer.set()

    def reply(self, message: Message) -> Message:
        """Return the reply to a message; subclasses have worse ones."""
        answers = [self._respond(message, place) for place in range(len(unpack(message)))]
        return Message(pack(*answers), reply_to=message)

    def _respond(self, message: Message, place: int) -> bytes:
        return respond(unpack(message)[place], self._answer)

    def _answer(self, task: str, instruction: Any) -> Any:
        self.asked.append((task, instruction))
        return self.tasks[task](instruction)


class SharedNode(Node):
    """A node that answers for whichever client a question is for."""

    def _respond(self, message: Message, place: int) -> bytes:
        told = message.content["told"]
        self.identity = replace(self.identity, cid=told["partition-ids"][place], num_clients=told["num-partitions"])
        return super()._respond(message, place)


class SilentNode(Node):
    """A node whose app fails, in Flower's words, as long as it has some."""

    error = "the app cannot be loaded"
    code = ErrorCode.LOAD_CLIENT_APP_EXCEPTION

    def reply(self, message: Message) -> Message:
        return Message(Error(self.code, self.error), reply_to=message) if self.error else super().reply(message)


class FakeGrid:
    """What an engine gives to a server. `trouble` is raised, unless it is None."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.trouble: Exception | None = None
        self.looks = 0  # how often it was asked who is there
        self.pushed: list[Message] = []
        self.under_way: dict[str, Message] = {}
        self.most_under_way = 0
        self.numbers = itertools.count(1)

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        self._raise()
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str | None]:
        self._raise()
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str | None:
        assert message.metadata.ttl > 0  # Flower takes no others
        if message.metadata.dst_node_id not in self.nodes:
            return None
        name = message.metadata.__dict__["_message_id"] = f"message {next(self.numbers)}"
        self.pushed.append(message)
        self.under_way[name] = message
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        return name

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._raise()
        asked = {name: self.nodes.get(self.under_way[name].metadata.dst_node_id) for name in message_ids}
        ready = {name: node for name, node in asked.items() if node is not None and node.may_answer.is_set()}
        return [node.reply(self.under_way.pop(name)) for name, node in ready.items()]

    def _raise(self) -> None:
        if self.trouble is not None:
            raise self.trouble
