"""What a node does with a question: a client of the script answers, here or where it is loaded, or a reason."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from multiprocessing.connection import Client, Listener
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

from federation.data import partition_file
from federation.data.partition_file import Examples
from federation.data.partitions import Partition, load_partition
from federation.engine import clientapp
from federation.engine.clientapp import answer_message
from federation.engine.records import pack, unpack
from federation.wire.handshake import Identity, question
from federation.wire.messages import read_answer, read_question, respond, write_question

import engines  # noqa: F401 - so that Flower makes messages
import numpy as np
import pytest
from fakes import MODEL, OK, TASKS, as_if_from, encoded
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.common import EvaluateIns, FitIns, GetPropertiesIns, parameters_to_ndarrays
from flwr.proto.transport_pb2 import ServerMessage
from processes import ROOT

NODE_ID = 4711
NUM_CLIENTS = 3
HANDSHAKE = GetPropertiesIns(question())
FIT = FitIns(encoded(MODEL), {"server_round": 1})
EVALUATE = EvaluateIns(encoded(MODEL), {"server_round": 1})


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """Three partitions of 20, 30 and 40 images; their pixels are the number of the partition."""
    for cid in range(NUM_CLIENTS):
        num = 20 + 10 * cid
        examples = Examples(np.full((num, 28, 28, 1), cid, np.uint8), np.arange(num) % 10)
        partition_file.write(Partition("mnist", cid, NUM_CLIENTS, tmp_path / "data").path, examples, [])
    return tmp_path / "data"


@pytest.fixture
def made(monkeypatch) -> list[NumPyClient]:
    """The clients that the made-up script client_x.py has made in this process, which has none at first."""
    made: list[NumPyClient] = []

    class FlowerClient(NumPyClient):
        def __init__(self, settings) -> None:
            self.settings = settings
            self.train_set, self.validation_set = load_partition(settings.partition)
            made.append(self)

        def get_parameters(self, config):
            return MODEL

        def fit(self, parameters, config):
            return [array + 1 for array in parameters], len(self.train_set.labels), {}

        def evaluate(self, parameters, config):
            return float(self.validation_set.images.mean()), len(self.validation_set.labels), {}

    as_if_from("/somewhere/client_x.py", FlowerClient, monkeypatch)
    sys.modules["client_x"].make_client = FlowerClient
    monkeypatch.setattr(clientapp, "loaded", {})
    return made


@pytest.fixture
def ask(data_dir):
    """Return a function that asks the node with this configuration; dashes in its names are underscores here."""

    def ask(task: str, instruction: Any, told: dict[str, Any] | None = None, **node: Any) -> Any:
        config = {"data-dir": str(data_dir), **{name.replace("_", "-"): value for name, value in node.items()}}
        records = pack(write_question(task, instruction).SerializeToString())
        records["told"] = ConfigRecord({"script": "client_x", "dataset": "mnist", **(told or {})})
        message = Message(records, NODE_ID, "query")
        message.metadata.__dict__["_message_id"] = "a message"
        reply = answer_message(message, Context(1, NODE_ID, config, RecordDict({}), {}))
        assert not reply.has_error() and reply.metadata.reply_to_message_id == "a message"
        (answer,) = unpack(reply)
        return read_answer(task, answer)

    return ask


def test_a_node_says_who_it_is(ask, made):
    result = ask("get_properties", HANDSHAKE, partition_id=2, num_partitions=3)
    known = Identity.read(result.properties)
    assert (known.cid, known.num_clients, known.dataset, known.alpha) == (2, NUM_CLIENTS, "mnist", "")
    assert (known.script, known.instance) == ("client_x.py", f"{NODE_ID}")
    assert not known.keeps_model  # no digests: the next question may reach another process


def test_a_node_fits_and_evaluates(ask, made):
    result = ask("fit", FIT, partition_id=1, num_partitions=3)
    assert result.status.code == OK.code and result.num_examples == 27
    assert [array.tolist() for array in parameters_to_ndarrays(result.parameters)] == [(a + 1).tolist() for a in MODEL]
    assert result.metrics["seconds"] >= 0
    result = ask("evaluate", EVALUATE, partition_id=1, num_partitions=3)
    assert (result.loss, result.num_examples) == (1.0, 3)


def test_what_the_client_is_told(ask, made, data_dir):
    ask("fit", FIT, {"threads": 1}, partition_id=1, num_partitions=3)
    (client,) = made
    assert client.settings.partition == Partition("mnist", 1, NUM_CLIENTS, data_dir) and client.settings.threads == 1


def test_the_nodes_own_folder_and_the_runs_alpha(ask, made, tmp_path, data_dir):
    elsewhere = Partition("mnist", 1, NUM_CLIENTS, tmp_path / "elsewhere", 0.3)
    examples = Examples(np.zeros((50, 28, 28, 1), np.uint8), np.arange(50) % 10)
    partition_file.write(elsewhere.path, examples, [])
    node = {"partition_id": 1, "num_partitions": 3, "data_dir": str(tmp_path / "elsewhere")}
    assert ask("fit", FIT, {"alpha": 0.3}, **node).num_examples == 45
    assert made[0].settings.partition == elsewhere and made[0].settings.threads is None
    assert Identity.read(ask("get_properties", HANDSHAKE, {"alpha": 0.3}, **node).properties).alpha == "0.3"


def test_the_client_of_the_process_is_kept_and_its_partition_swapped(ask, made, monkeypatch):
    loads = []
    module = sys.modules["federation.data.partitions"]
    load = module.load_partition
    monkeypatch.setattr(module, "load_partition", lambda partition: (loads.append(partition.cid), load(partition))[1])
    examples = [ask("fit", FIT, partition_id=cid, num_partitions=3).num_examples for cid in (0, 2, 2, 1, 0)]
    assert examples == [18, 36, 36, 27, 18]
    assert len(made) == 1
    assert loads == [2, 1, 0]  # the first one by the script itself, and none twice in a row
    assert ask("evaluate", EVALUATE, partition_id=2, num_partitions=3).loss == 2.0
    known = Identity.read(ask("get_properties", HANDSHAKE, partition_id=1, num_partitions=3).properties)
    assert (known.cid, len(made)) == (1, 1)


@pytest.mark.parametrize("missing", ["partition_id", "num_partitions"])
def test_a_node_that_does_not_say_what_it_has(ask, made, capsys, missing):
    node = {"partition_id": 1, "num_partitions": 3}
    del node[missing]
    status = ask("get_properties", HANDSHAKE, **node).status
    name = missing.replace("_", "-")
    assert status.code != OK.code and status.message == f"it has no '{name}' in its --node-config"
    assert f"cannot answer: it has no '{name}' in its --node-config\n" in capsys.readouterr().err


def test_data_that_cannot_be_had_is_told_in_a_sentence(ask, made, data_dir):
    path = Partition("mnist", 1, NUM_CLIENTS, data_dir).path
    path.unlink()
    path.symlink_to("nowhere")
    status = ask("fit", FIT, partition_id=1, num_partitions=3).status
    assert status.code != OK.code and status.message.startswith(f"Cannot use {path}: No such file or directory")
    assert ask("fit", FIT, partition_id=0, num_partitions=3).num_examples == 18  # another node of this process


def test_data_that_another_process_could_not_make(ask, made, data_dir, capfd):
    """It has told its reason where it runs, and it is told to the server, too."""
    (data_dir / "mnist/train-00000-of-00002.parquet").touch()
    status = ask("fit", FIT, partition_id=3, num_partitions=4).status
    assert status.message.startswith(f"{data_dir}/mnist has train-00000-of-00002.parquet, but the data set is")
    assert status.message in capfd.readouterr().err


def test_a_process_that_ends_without_a_word(ask, made, monkeypatch):
    def fail(settings):
        sys.exit(3)

    monkeypatch.setattr(sys.modules["client_x"], "make_client", fail)
    status = ask("fit", FIT, partition_id=1, num_partitions=3).status
    assert status.message == "it ended with exit code 3: its log says why"


@pytest.mark.parametrize("error", [RuntimeError("no room"), KeyError("weights")])
def test_a_script_that_fails(ask, made, monkeypatch, capsys, error):
    def fail(settings):
        raise error

    make_client = sys.modules["client_x"].make_client
    monkeypatch.setattr(sys.modules["client_x"], "make_client", fail)
    status = ask("get_properties", HANDSHAKE, partition_id=1, num_partitions=3).status
    assert status.message == {"RuntimeError": "no room", "KeyError": "KeyError: 'weights'"}[type(error).__name__]
    assert "Traceback" in capsys.readouterr().err
    sys.modules["client_x"].make_client = make_client
    assert ask("fit", FIT, partition_id=1, num_partitions=3).num_examples == 27  # nothing was kept


def test_an_error_in_a_fit_is_told(ask, made, monkeypatch):
    ask("get_properties", HANDSHAKE, partition_id=1, num_partitions=3)
    monkeypatch.setattr(made[0], "fit", lambda parameters, config: 1 / 0)
    status = ask("fit", FIT, partition_id=1, num_partitions=3).status
    assert status.message == "ZeroDivisionError: division by zero"


@pytest.fixture
def resident(tmp_path):
    """Return a function that listens at a socket and does with each connection what the next of `turns` says."""
    path = tmp_path / "client.sock"
    threads = []

    def resident(*turns: Callable[[dict, bytes], bytes | None]) -> str:
        listener = Listener(str(path), "AF_UNIX")

        def listen() -> None:
            with listener:
                for turn in turns:
                    with contextlib.suppress(EOFError), listener.accept() as connection:
                        answer = turn(json.loads(connection.recv_bytes()), connection.recv_bytes())
                        if answer is not None:
                            connection.send_bytes(answer)

        threads.append(threading.Thread(target=listen, daemon=True))
        threads[-1].start()
        return str(path)

    yield resident
    for thread in threads:
        for _ in range(10):  # a turn that was not taken
            with contextlib.suppress(OSError):
                Client(str(path), "AF_UNIX").close()
        thread.join(10)
        assert not thread.is_alive()


def well(expected: dict, question: bytes) -> bytes:
    return respond(question, lambda task, instruction: TASKS[task][1])


def test_a_client_that_is_loaded_answers(ask, made, resident):
    asked = []

    def note(expected, question):
        asked.append((expected, read_question(ServerMessage.FromString(question))))
        return well(expected, question)

    path = resident(note, note)
    assert ask("fit", FIT, {"alpha": 0.3}, socket=path) == TASKS["fit"][1]
    assert ask("evaluate", EVALUATE, socket=path, partition_id=1, num_partitions=3) == TASKS["evaluate"][1]
    assert asked == [
        ({"code": str(ROOT), "dataset": "mnist", "alpha": "0.3"}, ("fit", FIT)),
        ({"code": str(ROOT), "dataset": "mnist", "alpha": "", "cid": 1, "num_clients": 3}, ("evaluate", EVALUATE)),
    ]
    assert made == []


def test_a_client_that_dies_is_asked_once_more(ask, resident):
    assert ask("fit", FIT, socket=resident(lambda *_: None, well)) == TASKS["fit"][1]


def test_a_client_that_dies_twice(ask, resident):
    path = resident(lambda *_: None, lambda *_: None)
    assert ask("fit", FIT, socket=path).status.message == f"the client at {path} died twice over this question"


SCRIPT = """
import json, os, signal, sys
from multiprocessing.connection import Listener

signal.alarm(60)  # whatever the test does
print("FLOWER_SUPERNODE", os.environ["FLOWER_SUPERNODE"], *sys.argv[1:], flush=True)
with Listener(sys.argv[2], "AF_UNIX") as listener, listener.accept() as connection:
    connection.recv_bytes(), connection.recv_bytes()
    connection.send_bytes(bytes.fromhex(open("answer").read()))
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project whose made-up script gives one answer and ends."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/client_x.py").write_text(SCRIPT)
    asked = write_question("fit", FIT).SerializeToString()
    (tmp_path / "project/answer").write_text(well({}, asked).hex())
    monkeypatch.setattr(clientapp, "ROOT", tmp_path / "project")
    started = []
    popen = clientapp.subprocess.Popen
    monkeypatch.setattr(
        clientapp,
        "subprocess",
        SimpleNamespace(
            Popen=lambda *args, **more: started.append(popen(*args, **more)) or started[-1],
            DEVNULL=clientapp.subprocess.DEVNULL,
        ),
    )
    yield tmp_path / "project"
    for process in started:
        process.kill()
        process.wait()


def test_a_client_is_started_if_none_is_loaded(ask, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not where the script is
    node = {"socket": "client.sock", "data_dir": "images", "partition_id": 1, "num_partitions": 3}
    assert ask("fit", FIT, {"alpha": 0.3}, **node) == TASKS["fit"][1]
    words = f"--serve {tmp_path}/client.sock --cid 1 --num_clients 3 --data_dir {tmp_path}/images --alpha 0.3 --mnist"
    assert Path("client.sock.log").read_text() == f"FLOWER_SUPERNODE {os.getppid()} {words}\n"


@pytest.mark.parametrize("dies", ["exits", "raises"])
def test_a_client_that_cannot_start_says_why(ask, project, tmp_path, dies):
    reason = "it has learnt nothing but digits,\nand will not"
    end = f"sys.exit({reason!r})" if dies == "exits" else "raise ValueError('no')"
    (project / "client_x.py").write_text(f"import sys\n{end}\n")
    (tmp_path / "client.sock.log").write_text("of an earlier start\n")
    node = {"socket": str(tmp_path / "client.sock"), "partition_id": 1, "num_partitions": 3}
    status = ask("fit", FIT, {"dataset": "cifar10"}, **node).status
    said = reason if dies == "exits" else "ValueError: no"
    assert status.message == f"its client ended with exit code 1: {said}"


def test_a_client_cannot_be_started_without_a_partition(ask, project, tmp_path):
    status = ask("fit", FIT, socket=str(tmp_path / "client.sock")).status
    assert status.message == "it has no 'partition-id' in its --node-config"


def test_a_client_that_never_answers(ask, project, tmp_path, monkeypatch):
    monkeypatch.setattr(clientapp, "LOADING_TIMEOUT", 0.1)
    (project / "client_x.py").write_text("import time; time.sleep(60)")
    node = {"socket": str(tmp_path / "client.sock"), "partition_id": 1, "num_partitions": 3}
    assert ask("fit", FIT, **node).status.message == f"no client answers at {tmp_path / 'client.sock'}"
