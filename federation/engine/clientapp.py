"""How a node of Flower's engines answers a question: with a client of the script."""

from __future__ import annotations

import sys
import traceback
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Mapping

from federation.client.about import identify
from federation.client.flags import ClientSettings
from federation.client.power import Meter
from federation.client.threads import Threads
from federation.client.wrapper import ClientWrapper
from federation.data.partitions import Partitioning, load_partition
from federation.engine.nodes import pack, unpack
from federation.flags import Failure
from federation.wire.messages import failure, respond

from flwr.app import Context, Message


def answer_message(message: Message, context: Context) -> Message:
    """Return the reply to a message of `Nodes`: for each question, an answer or the reason why there is none.

    The node's configuration contains its partition, `partition-id`, unless the message contains `partition-ids`, one
    per question. It also contains `num-partitions` and, optionally, `data-dir`.
    """
    told: dict[str, Any] = {**message.content["told"]}
    questions, cids = unpack(message), told.pop("partition-ids", None)
    nodes: list[dict[str, Any]] = [{}] if cids is None else [{"partition-id": cid} for cid in cids]
    config = {**context.node_config, **told}
    answers = [_answer(question, told, {**config, **node}, context) for question, node in zip(questions, nodes)]
    return Message(pack(*answers), reply_to=message)


def _answer(question: bytes, told: Mapping[str, Any], node: Mapping[str, Any], context: Context) -> bytes:
    try:
        return respond(question, _wrapper(told, node, context.node_id).answer)
    except Failure as error:  # it has no data, for example
        reason = f"{error}"
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    print(f"cannot answer: {reason}", file=sys.stderr)
    return respond(question, lambda task, _: failure(task, reason))


def _wrapper(told: Mapping[str, Any], node: Mapping[str, Any], node_id: int) -> ClientWrapper:
    """The client of the partition that this node has, wrapped as for server.py."""
    for name in ("partition-id", "num-partitions"):
        if name not in node:
            raise Failure(f"its --node-config has no '{name}'")
    cid, num_clients = int(node["partition-id"]), int(node["num-partitions"])
    data_dir = Path(node.get("data-dir", "data"))
    partitioning = Partitioning(told["dataset"], data_dir, num_clients, told.get("alpha"))
    simulated = told.get("simulated", False)  # these share a machine: one core each, and no meter
    threads = Threads(1 if simulated else None)
    client = script_client(told["script"]).having(ClientSettings(partitioning, cid, threads))
    identity = identify(client, partitioning, cid, f"{node_id}", keeps_model=False)
    return ClientWrapper(client, identity, None, None if simulated else Meter(), threads)


class ScriptClient:
    """The client of a script: made for a first partition, then given the images of others."""

    def __init__(self, script: str) -> None:
        self.script = import_module(script)
        self.client: Any = None
        self.settings: ClientSettings | None = None

    def having(self, settings: ClientSettings) -> Any:
        """Return the client with the images of the partition in `settings`."""
        if self.client is None:
            self.client = self.script.make_client(settings)
        elif settings != self.settings:
            self.client.train_set, self.client.validation_set = load_partition(settings.partitioning, settings.cid)
        self.settings = settings
        return self.client


script_client = lru_cache(maxsize=1)(ScriptClient)  # one per process, which in a simulation answers for many nodes
