"""What server and clients say to each other: questions and answers as Flower's own server and client have them."""

from __future__ import annotations

from federation.wire import messages
from federation.wire.handshake import Refused

import pytest
from fakes import MODEL, OK, TASKS, encoded
from flwr.common import FitRes, serde
from flwr.proto.transport_pb2 import ServerMessage
from google.protobuf.message import DecodeError


@pytest.mark.parametrize("task", TASKS)
def test_a_question_is_flowers_and_arrives_as_it_was_sent(task):
    instruction = TASKS[task][0]
    message = messages.write_question(task, instruction)
    assert message.WhichOneof("msg") == f"{task}_ins"
    assert getattr(message, f"{task}_ins") == getattr(serde, f"{task}_ins_to_proto")(instruction)
    assert messages.read_question(ServerMessage.FromString(message.SerializeToString())) == (task, instruction)


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_flowers_and_arrives_as_it_was_sent(task):
    result = TASKS[task][1]
    message = messages.write_answer(task, result)
    assert message.WhichOneof("msg") == f"{task}_res"
    assert getattr(serde, f"{task}_res_from_proto")(getattr(message, f"{task}_res")) == result
    assert messages.read_answer(task, message.SerializeToString()) == result


def test_what_is_no_answer():
    answer = messages.write_answer("evaluate", TASKS["evaluate"][1]).SerializeToString()
    for wrong in (answer, b""):
        with pytest.raises(ValueError, match="^its reply is not a reply to fit$"):
            messages.read_answer("fit", wrong)
    with pytest.raises(DecodeError):
        messages.read_answer("fit", b"\xff no message")


@pytest.mark.parametrize(
    "result",
    [
        FitRes(OK, encoded(MODEL), 2**64, {}),
        FitRes(OK, encoded(MODEL), 20, {"steps": 2**70}),
        FitRes(OK, encoded(MODEL), 20, {"text": "\ud800"}),
        FitRes(OK, encoded(MODEL), 20, {"list": [1, 2]}),
    ],
)
def test_a_result_that_cannot_be_sent(result):
    answer = messages.write_answer("fit", result).SerializeToString()
    status = messages.read_answer("fit", answer).status
    assert status.code != OK.code and status.message.startswith("cannot send its result (")


@pytest.mark.parametrize("task", TASKS)
def test_a_question_is_responded_to(task, capsys):
    def answer(*asked):
        assert asked == (task, TASKS[task][0])
        return TASKS[task][1]

    def refuse(*_):
        raise Refused("go")

    question = messages.write_question(task, TASKS[task][0]).SerializeToString()
    assert messages.read_answer(task, messages.respond(question, answer)) == TASKS[task][1]
    assert capsys.readouterr().out == ""
    status = messages.read_answer(task, messages.respond(question, refuse)).status
    assert status.code != OK.code and status.message == "go"
    assert capsys.readouterr().out == "go\n"  # both sides are told
