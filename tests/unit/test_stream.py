"""The client's end of a connection: what is answered until the goodbye, and how else a stream ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from federation.client.stream import ConnectionLost, answer_server
from federation.wire.addresses import Address
from federation.wire.handshake import Refused
from federation.wire.messages import read_answer, write_question

import grpc
import pytest
from fakes import TASKS
from flwr.proto.transport_pb2 import ServerMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceServicer, add_FlowerServiceServicer_to_server
from grpc import StatusCode
from processes import free_address

GOODBYE = ServerMessage(reconnect_ins=ServerMessage.ReconnectIns(seconds=0))


class Server(FlowerServiceServicer):
    """A gRPC server that sends its messages to a client, one after each answer, and then ends the stream."""

    def __init__(self, *messages, end=None):
        self.messages, self.end, self.answers = messages, end, []
        self.server = grpc.server(ThreadPoolExecutor(max_workers=1))
        self.address = Address("127.0.0.1", self.server.add_insecure_port("127.0.0.1:0"))

    def Join(self, answers, context):
        for message in self.messages:
            yield write_question(message, TASKS[message][0]) if isinstance(message, str) else message
            self.answers += [answer] if (answer := next(answers, None)) else []
        if self.end:
            context.abort(*self.end)

    def meet(self, answer=lambda task, instruction: TASKS[task][1], knows_flower=True):
        """Let a client come that answers its messages."""
        if knows_flower:
            add_FlowerServiceServicer_to_server(self, self.server)
        self.server.start()
        try:
            answer_server(self.address, None, None, answer)
        finally:
            self.server.stop(0).wait()


def test_every_message_is_answered_until_the_goodbye():
    asked = []

    def answer(task, instruction):
        asked.append((task, instruction))
        return TASKS[task][1]

    server = Server(*TASKS, GOODBYE)
    server.meet(answer)
    assert asked == [(task, instruction) for task, (instruction, _) in TASKS.items()]
    for task, sent in zip(TASKS, server.answers):
        assert read_answer(task, sent.SerializeToString()) == TASKS[task][1]
    for farewell in server.answers[len(TASKS) :]:  # it may come too late
        assert farewell.WhichOneof("msg") == "disconnect_res" and farewell.disconnect_res.reason  # none: unknown


LOST = {
    "it closed the connection": None,
    "the connection broke": (StatusCode.UNAVAILABLE, ""),
    "gRPC error UNKNOWN": (StatusCode.UNKNOWN, ""),
    "gRPC error RESOURCE_EXHAUSTED": (StatusCode.RESOURCE_EXHAUSTED, ""),
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("messages", [[], ["fit"]])
def test_a_connection_that_is_lost_is_tried_again(how, messages):
    server = Server(*messages, end=LOST[how])
    with pytest.raises(ConnectionLost, match=f"^{how}$") as lost:
        server.meet()
    assert lost.value.was_asked is bool(messages) and len(server.answers) == len(messages)


SOMEBODY_ELSE = "there is no Flower server at 127.0.0.1:[0-9]+: .* use the address that server.py printed"
REFUSED = [
    (StatusCode.UNIMPLEMENTED, "", SOMEBODY_ELSE),
    (StatusCode.UNAUTHENTICATED, "", SOMEBODY_ELSE),
    (StatusCode.PERMISSION_DENIED, "", SOMEBODY_ELSE),
    (StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (6 vs. 5)", "limit of a message, 512 MB"),
]


@pytest.mark.parametrize(("code", "details", "sentence"), REFUSED)
def test_what_another_attempt_would_not_change(code, details, sentence):
    with pytest.raises(Refused, match=sentence) as refused:
        Server(end=(code, details)).meet()
    assert not refused.value.again


def test_a_question_from_the_future():
    with pytest.raises(ConnectionLost, match="it sent a request that this version of Flower does not know") as lost:
        Server("fit", ServerMessage()).meet()
    assert not lost.value.was_asked  # it would ask the same again at once


def test_no_connection_goes_through_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://{free_address()}")  # nobody is there
    with pytest.raises(Refused):  # so somebody has answered
        Server().meet(knows_flower=False)
