"""What a node does with a question: a client of the script answers, or there is a reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from federation.client.threads import Threads
from federation.data import partition_file
from federation.data.partition_file import Examples
from federation.data.partitions import Partitioning, load_partition
from federation.engine import clientapp
from federation.engine.clientapp import answer_message, script_client
from federation.engine.nodes import pack, unpack
from federation.wire.handshake import Identity, question
from federation.wire.messages import read_answer, write_question

import engines  # noqa: F401 - so that Flower makes messages
import numpy as np
import pytest
from fakes import MODEL, OK, as_if_from, encoded
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client import NumPyClient
from flwr.common import EvaluateIns, FitIns, GetPropertiesIns, parameters_to_ndarrays

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
        partition_file.write(Partitioning("mnist", tmp_path / "data", NUM_CLIENTS).file(cid), examples)
    return tmp_path / "data"


@pytest.fixture
def made(monkeypatch) -> list[NumPyClient]:
    """The clients that the made-up script client_x.py has made in this process, which has none at first."""
    made: list[NumPyClient] = []

    class FlowerClient(NumPyClient):
        def __init__(self, settings) -> None:
            self.settings = settings
            self.train_set, self.validation_set = load_partition(settings.partitioning, settings.cid)
            made.append(self)

        def get_parameters(self, config):
            return MODEL

        def fit(self, parameters, config):
            return [array + 1 for array in parameters], len(self.train_set.labels), {}

        def evaluate(self, parameters, config):
            return float(self.validation_set.images.mean()), len(self.validation_set.labels), {}

    as_if_from("/somewhere/client_x.py", FlowerClient, monkeypatch)
    sys.modules["client_x"].make_client = FlowerClient
    script_client.cache_clear()
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


@pytest.mark.parametrize("simulated", [True, False])
def test_a_client_of_a_simulation_has_one_core_and_no_meter(ask, made, data_dir, monkeypatch, simulated):
    meters = []
    monkeypatch.setattr(clientapp, "Meter", lambda: meters.append(1))
    ask("fit", FIT, {"simulated": True} if simulated else {}, partition_id=1, num_partitions=3)
    (client,) = made
    assert (client.settings.partitioning, client.settings.cid) == (Partitioning("mnist", data_dir, NUM_CLIENTS), 1)
    assert client.settings.threads == Threads(1 if simulated else None) and len(meters) == (not simulated)


def test_the_client_of_the_process_is_kept_and_its_partition_swapped(ask, made, monkeypatch):
    loads = []
    monkeypatch.setattr(clientapp, "load_partition", lambda *which: (loads.append(which[1]), load_partition(*which))[1])
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
    assert status.code != OK.code and status.message == f"its --node-config has no '{name}'"
    assert f"cannot answer: its --node-config has no '{name}'\n" in capsys.readouterr().err


def test_data_that_another_process_could_not_make(ask, made, data_dir, capfd):
    """It has told its reason where it runs, and the server learns where that is."""
    (data_dir / "mnist/train-00000-of-00002.parquet").touch()
    status = ask("fit", FIT, partition_id=3, num_partitions=4).status
    assert status.message == "Cannot prepare the data: the reason is above, or in the SuperNode's log"
    assert f"{data_dir}/mnist has train-00000-of-00002.parquet, which is not one complete" in capfd.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("no room"), KeyError("weights")])
def test_a_script_that_fails(ask, made, monkeypatch, capsys, error):
    def fail(settings):
        raise error

    make_client = sys.modules["client_x"].make_client
    monkeypatch.setattr(sys.modules["client_x"], "make_client", fail)
    status = ask("get_properties", HANDSHAKE, partition_id=1, num_partitions=3).status
    assert status.message == f"{type(error).__name__}: {error}"
    assert "Traceback" in capsys.readouterr().err
    sys.modules["client_x"].make_client = make_client
    assert ask("fit", FIT, partition_id=1, num_partitions=3).num_examples == 27  # nothing was kept
