"""What server and clients say to each other: the parts of Flower that are not public, questions and their answers."""

from __future__ import annotations

import ast
import importlib

from federation.wire.handshake import Refused

import flwr
import pytest
from fakes import MODEL, OK, TASKS, encoded
from flwr.common import FitRes
from google.protobuf.message import DecodeError
from processes import ROOT

TRANSPORT = "flwr.proto.transport_pb2"
PARTS = {
    "federation/wire/messages.py": {
        TRANSPORT: ["ClientMessage", "ServerMessage"],
        "flwr.common.serde": [
            f"{task}_{what}"
            for task in TASKS
            for what in ("ins_from_proto", "ins_to_proto", "res_to_proto", "res_from_proto")
        ],
    },
    "federation/client/stream.py": {
        TRANSPORT: ["ClientMessage", "Reason"],
        "flwr.proto.transport_pb2_grpc": ["FlowerServiceStub"],
    },
}


@pytest.fixture
def messages():
    """The module, imported here: without a part, its test should fail with a sentence, not the import of this file."""
    return importlib.import_module("federation.wire.messages")


@pytest.fixture
def serde():
    return importlib.import_module("flwr.common.serde")


@pytest.fixture
def transport():
    return importlib.import_module(TRANSPORT)


@pytest.mark.parametrize(
    ("user", "module", "name"),
    [(user, module, name) for user, used in PARTS.items() for module, names in used.items() for name in names],
)
def test_a_part_of_flower_that_is_not_public(user, module, name):
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    assert found is not None, (
        f"Flower {flwr.__version__} has no {module}.{name}, which {user} is built on: find what has taken its place, "
        f"or stay with an older Flower"
    )


def test_nothing_else_uses_such_parts():
    found: dict[str, dict[str, set[str]]] = {}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("federation/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith(("flwr.proto", "flwr.common.serde")) for alias in node.names), path
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr"):
                names = {alias.name for alias in node.names}
                private_names = names if node.module.startswith("flwr.proto") else {"serde", "proto"} & names
                assert not node.module.endswith("serde"), path
                if private_names:
                    found.setdefault(path.relative_to(ROOT).as_posix(), {})[node.module] = private_names
    expected = {user: {module: set(names) for module, names in used.items()} for user, used in PARTS.items()}
    expected["federation/wire/messages.py"] = {"flwr.common": {"serde"}, TRANSPORT: {"ClientMessage", "ServerMessage"}}
    assert found == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_question_arrives_as_it_was_sent(messages, transport, task):
    instruction = TASKS[task][0]
    sent = messages.write_question(task, instruction).SerializeToString()
    assert messages.read_question(transport.ServerMessage.FromString(sent)) == (task, instruction)


@pytest.mark.parametrize("task", TASKS)
def test_a_question_is_flowers(messages, serde, task):
    """As Flower's own server sends it, and Flower's own client understands it."""
    message = messages.write_question(task, TASKS[task][0])
    assert message.WhichOneof("msg") == f"{task}_ins"
    assert getattr(message, f"{task}_ins") == getattr(serde, f"{task}_ins_to_proto")(TASKS[task][0])


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_arrives_as_it_was_sent(messages, task):
    result = TASKS[task][1]
    assert messages.read_answer(task, messages.write_answer(task, result).SerializeToString()) == result


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_flowers(messages, serde, task):
    message = messages.write_answer(task, TASKS[task][1])
    assert message.WhichOneof("msg") == f"{task}_res"
    assert getattr(serde, f"{task}_res_from_proto")(getattr(message, f"{task}_res")) == TASKS[task][1]


def test_the_goodbye(messages, transport):
    goodbye = transport.ServerMessage(reconnect_ins=transport.ServerMessage.ReconnectIns(seconds=0))
    assert messages.read_question(goodbye) == ("reconnect", None)


def test_a_question_from_the_future(messages, transport):
    with pytest.raises(ValueError, match="asked something that this version of Flower does not know"):
        messages.read_question(transport.ServerMessage())


@pytest.mark.parametrize(("task", "other"), [(task, other) for task in TASKS for other in TASKS if other != task])
def test_the_answer_to_another_question(messages, task, other):
    answer = messages.write_answer(other, TASKS[other][1]).SerializeToString()
    with pytest.raises(ValueError, match=f"^it answered something else than {task}$"):
        messages.read_answer(task, answer)


@pytest.mark.parametrize("answer", [b"", b"\xff no message"])
def test_what_is_no_answer(messages, answer):
    with pytest.raises((ValueError, DecodeError)):
        messages.read_answer("fit", answer)


@pytest.mark.parametrize(
    "result",
    [
        FitRes(OK, encoded(MODEL), 20, {"steps": 2**70}),
        FitRes(OK, encoded(MODEL), 2**64, {}),
        FitRes(OK, encoded(MODEL), 20, {"text": "\ud800"}),
        FitRes(OK, encoded(MODEL), 20, {"list": [1, 2]}),
    ],
)
def test_a_result_that_cannot_be_sent(messages, serde, result):
    message = messages.write_answer("fit", result)
    status = serde.fit_res_from_proto(message.fit_res).status
    assert status.code != OK.code and status.message.startswith("its result cannot be sent (")


@pytest.mark.parametrize("task", TASKS)
def test_a_failure_can_be_sent(messages, task):
    answer = messages.write_answer(task, messages.failure(task, "KeyError: 'x'")).SerializeToString()
    result = messages.read_answer(task, answer)
    assert type(result) is type(TASKS[task][1])
    assert result.status.code != OK.code and result.status.message == "KeyError: 'x'"


@pytest.mark.parametrize("task", TASKS)
def test_a_question_is_responded_to(messages, task):
    asked = []

    def answer(task, instruction):
        asked.append((task, instruction))
        return TASKS[task][1]

    question = messages.write_question(task, TASKS[task][0]).SerializeToString()
    assert messages.read_answer(task, messages.respond(question, answer)) == TASKS[task][1]
    assert asked == [(task, TASKS[task][0])]


@pytest.mark.parametrize("task", TASKS)
def test_a_refusal_is_told_to_both_sides(messages, task, capsys):
    def answer(task, instruction):
        raise Refused("refused by the server: go")

    question = messages.write_question(task, TASKS[task][0]).SerializeToString()
    status = messages.read_answer(task, messages.respond(question, answer)).status
    assert status.code != OK.code and status.message == "refused by the server: go"
    assert capsys.readouterr().out == "refused by the server: go\n"


@pytest.mark.parametrize("task", TASKS)
def test_a_question_that_nobody_can_answer_is_answered_with_the_reason(messages, task):
    question = messages.write_question(task, TASKS[task][0]).SerializeToString()
    status = messages.read_answer(task, messages.refuse(question, "it has no data")).status
    assert status.code != OK.code and status.message == "it has no data"
