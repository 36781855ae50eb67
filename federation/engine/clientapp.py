"""What a node of Flower's engines does with a question: a client of the script answers, here or where it is loaded."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from importlib import import_module
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Mapping

from federation.client.resident import SUPERNODE
from federation.engine.records import pack, unpack
from federation.wire.messages import refuse, respond

from flwr.app import Context, Message

ROOT = Path(__file__).parents[2]
LOADING_TIMEOUT = 300  # seconds
loaded: dict[str, Any] = {}  # the client of this process, which in a simulation answers for many nodes


def answer_message(message: Message, context: Context) -> Message:
    """Return the reply to a message of `Nodes`, an answer to each question; the reason, where there is none.

    The node's configuration says which partition it has, `partition-id`, unless the message does, for each question:
    `partition-ids`. Besides, `num-partitions`, and optionally `data-dir`; with `socket`, a client that stays loaded
    answers, see federation/client/resident.py.
    """
    told: dict[str, Any] = {**message.content["told"]}
    questions, cids = unpack(message), told.pop("partition-ids", None)
    nodes: list[dict[str, Any]] = [{}] if cids is None else [{"partition-id": cid} for cid in cids]
    config = {**context.node_config, **told}
    answers = [_answer(question, told, {**config, **node}, context) for question, node in zip(questions, nodes)]
    return Message(pack(*answers), reply_to=message)


def _answer(question: bytes, told: Mapping[str, Any], node: Mapping[str, Any], context: Context) -> bytes:
    try:
        if "socket" in node:
            return _forward(question, told, node)
        return respond(question, _wrapper(told, node, context.node_id).answer)
    except (Exception, SystemExit) as error:  # it has no data, for example
        traceback.print_exc()
        print(f"cannot answer: {_reason(error)}", file=sys.stderr)
        return refuse(question, _reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f"it ended with exit code {error.code}: its log says why"
    if isinstance(error, KeyError):
        is_the_nodes = error.args[0] in ("partition-id", "num-partitions")
        return f"it has no {error} in its --node-config" if is_the_nodes else f"KeyError: {error}"
    return f"{error}"


def _wrapper(told: Mapping[str, Any], node: Mapping[str, Any], node_id: int) -> Any:
    """Return the client of the partition that this node has, wrapped as for server.py."""
    # Here, because a node whose client stays loaded needs none of these.
    from federation.client.flags import ClientSettings
    from federation.client.identity import identify
    from federation.client.power import Meter
    from federation.client.wrapper import ClientWrapper
    from federation.data.partitions import Partition, load_partition

    data_dir = Path(node.get("data-dir", "data"))
    alpha = told.get("alpha")
    partition = Partition(told["dataset"], int(node["partition-id"]), int(node["num-partitions"]), data_dir, alpha)
    if not loaded:
        settings = ClientSettings(partition, threads=told.get("threads"))
        loaded.update(client=import_module(told["script"]).make_client(settings), partition=partition)
    client = loaded["client"]
    if loaded["partition"] != partition:
        client.train_set, client.validation_set = load_partition(partition)
        loaded["partition"] = partition
    meter = Meter() if "threads" not in told else None  # of a device; simulated ones share theirs
    return ClientWrapper(client, identify(client, partition, f"{node_id}", keeps_model=False), None, meter)


def _forward(question: bytes, told: Mapping[str, Any], node: Mapping[str, Any]) -> bytes:
    """Return the answer of the client that stays loaded; it is started if it is not there, or not as the run wants."""
    alpha = told.get("alpha")
    expected = {"code": str(ROOT), "dataset": told["dataset"], "alpha": "" if alpha is None else f"{alpha}"}
    for name, key in {"cid": "partition-id", "num_clients": "num-partitions"}.items():
        if key in node:
            expected[name] = int(node[key])
    for _ in range(2):  # it may die of the first question, for lack of memory
        with contextlib.suppress(EOFError, ConnectionError), _connect(told, node) as connection:
            connection.send_bytes(json.dumps(expected).encode())
            connection.send_bytes(question)
            return connection.recv_bytes()
    raise RuntimeError(f"the client at {node['socket']} died twice over this question")


def _connect(told: Mapping[str, Any], node: Mapping[str, Any]) -> Connection:
    process, give_up_at = None, time.monotonic() + LOADING_TIMEOUT
    log, before = Path(f"{node['socket']}.log"), 0
    while time.monotonic() < give_up_at:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return Client(node["socket"], "AF_UNIX")
        if process is None:
            before = log.stat().st_size if log.exists() else 0
            process = _start(told, node, log)
        elif process.poll() is not None:
            said = log.read_bytes()[before:].decode(errors="replace").strip()
            if "Traceback (most recent call last)" in said:  # not where in the code: the log has that
                said = said.rpartition("\n")[2]
            raise RuntimeError(f"its client ended with exit code {process.returncode}: {said}")
        time.sleep(0.2)
    raise RuntimeError(f"no client answers at {node['socket']}")


def _start(told: Mapping[str, Any], node: Mapping[str, Any], log: Path) -> subprocess.Popen:
    """Start the client that stays loaded, until the SuperNode ends."""
    # Paths are meant from where the SuperNode was started, the script runs where Flower has unpacked the project.
    flags = {
        "--serve": Path(node["socket"]).absolute(),
        "--cid": node["partition-id"],
        "--num_clients": node["num-partitions"],
        "--data_dir": Path(node.get("data-dir", "data")).absolute(),
    }
    if "alpha" in told:
        flags["--alpha"] = told["alpha"]
    words = [str(word) for flag in flags.items() for word in flag]
    words += ["--mnist"] if told["dataset"] == "mnist" else []
    environment = {**os.environ, SUPERNODE: str(_supernode())}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, f"{told['script']}.py", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # else Ctrl-C to the SuperNode would end it in the middle of a message
        )


def _supernode() -> int:
    """Return the process of the SuperNode that this process works for."""
    import psutil

    parents = psutil.Process().parents()
    nodes = [process.pid for process in parents if any("flower-supernode" in word for word in process.cmdline())]
    return nodes[-1] if nodes else os.getppid()
