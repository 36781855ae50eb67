"""The client's end of the wire: what is answered until the goodbye, and how else a stream ends."""

from __future__ import annotations

import contextlib
import importlib
import queue
import types
from concurrent.futures import ThreadPoolExecutor

from federation.wire.handshake import Refused

import grpc
import pytest
from fakes import TASKS
from processes import free_address


@pytest.fixture
def wire():
    """The module, imported here: see test_messages.py."""
    return importlib.import_module("federation.client.stream")


@pytest.fixture
def write_question():
    return importlib.import_module("federation.wire.messages").write_question


@pytest.fixture
def goodbye():
    """The server's message that the run is over."""
    message = importlib.import_module("flwr.proto.transport_pb2").ServerMessage
    return message(reconnect_ins=message.ReconnectIns(seconds=0))


class Broken(grpc.RpcError):
    """The end of a stream, as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, details: str | None = "") -> None:
        self.code = lambda: code
        self.details = lambda: details


@pytest.fixture
def stream(wire, write_question, monkeypatch):
    """Return a function that has `answer_server` answer a server's messages, after which the stream ends as told.

    `stream.sent` is what the client sent before that, `stream.left` what it put last for gRPC to take.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def stream(*messages, end=None, answer=lambda task, instruction: TASKS[task][1]):
        def join(_, replies):
            for message in messages:
                yield write_question(message, TASKS[message][0]) if isinstance(message, str) else message
                stream.sent.append(next(replies))
            if end is not None:
                raise end

        monkeypatch.setattr(wire, "FlowerServiceStub", type("Stub", (), {"__init__": lambda *_: None, "Join": join}))
        try:
            wire.answer_server("127.0.0.1:1", None, answer)
        finally:
            while not answers.empty():
                stream.left.append(answers.get())

    stream.sent, stream.left = [], []
    monkeypatch.setattr(wire, "queue", types.SimpleNamespace(SimpleQueue=lambda: answers))
    monkeypatch.setattr(wire, "_channel", lambda address, root_certificate: contextlib.nullcontext())
    return stream


def test_every_message_is_answered_until_the_goodbye(stream, goodbye):
    asked = []

    def answer(task, instruction):
        asked.append((task, instruction))
        return TASKS[task][1]

    stream(*TASKS, goodbye, answer=answer)
    assert asked == [(task, instruction) for task, (instruction, _) in TASKS.items()]
    assert [message.WhichOneof("msg") for message in stream.sent] == [f"{task}_res" for task in TASKS]
    farewell, end = stream.left
    assert farewell.WhichOneof("msg") == "disconnect_res" and farewell.disconnect_res.reason  # none: unknown
    assert end is None  # gRPC's thread that takes the answers ends


@pytest.mark.parametrize("messages", [[], ["fit"]])
def test_a_server_that_hangs_up(wire, stream, messages):
    with pytest.raises(wire.ConnectionLost, match="^it hung up$") as lost:
        stream(*messages)
    assert lost.value.was_asked is bool(messages)
    assert len(stream.sent) == len(messages) and stream.left == [None]


@pytest.mark.parametrize("messages", [[], ["fit"]])
def test_a_connection_that_breaks(wire, stream, messages):
    with pytest.raises(wire.ConnectionLost, match="^UNAVAILABLE$") as lost:
        stream(*messages, end=Broken(grpc.StatusCode.UNAVAILABLE))
    assert lost.value.was_asked is bool(messages)
    assert stream.left == [None]


def test_a_model_that_is_larger_than_a_message_is_no_use_to_try_again(stream):
    details = "CLIENT: Received message larger than max (600000000 vs. 536870912)"
    with pytest.raises(Refused, match="the model is larger than a message can be, 512 MB") as refused:
        stream(end=Broken(grpc.StatusCode.RESOURCE_EXHAUSTED, details))
    assert not refused.value.again
    assert stream.left == [None]


@pytest.mark.parametrize("details", [None, "", "too many connections"])
def test_other_limits_may_pass(wire, stream, details):
    with pytest.raises(wire.ConnectionLost, match="^RESOURCE_EXHAUSTED$"):
        stream(end=Broken(grpc.StatusCode.RESOURCE_EXHAUSTED, details))


NOT_FLOWERS = {
    "another service": (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    "another service, without a word": (grpc.StatusCode.UNIMPLEMENTED, None),
    "another service that wants a login": (grpc.StatusCode.UNAUTHENTICATED, ""),
    "another service that lets nobody in": (grpc.StatusCode.PERMISSION_DENIED, ""),
    "a web server that takes no POST": (grpc.StatusCode.UNKNOWN, "Received http2 header with status: 405"),
    "a web server that understands nothing": (grpc.StatusCode.INTERNAL, "Received http2 header with status: 400"),
}


@pytest.mark.parametrize("who", NOT_FLOWERS)
def test_who_is_no_flower_server_is_no_use_to_try_again(stream, who):
    expected = "there is no Flower server at 127.0.0.1:1: .* give the address that server.py printed"
    with pytest.raises(Refused, match=expected) as refused:
        stream(end=Broken(*NOT_FLOWERS[who]))
    assert not refused.value.again
    assert stream.left == [None]


@pytest.fixture
def another_service():
    """The port, on all addresses, of a gRPC server without Flower's service."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    yield port
    server.stop(0).wait()


PROXIES = [
    *(f"{kind}_proxy" for kind in ("http", "https", "grpc", "all")),
    *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "GRPC", "ALL")),
    "GRPC_ADDRESS_HTTP_PROXY",
]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("variable", PROXIES)
def test_no_connection_goes_through_a_proxy(wire, monkeypatch, another_service, variable, host):
    proxy = free_address()
    monkeypatch.setenv(variable, proxy if variable.startswith("GRPC_ADDRESS") else f"http://{proxy}")
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8")  # only with the last of them
    with pytest.raises(Refused):  # so somebody has answered
        wire.answer_server(f"{host}:{another_service}", None, lambda task, instruction: None)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        *((getattr(grpc.StatusCode, code), "") for code in ("UNKNOWN", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED")),
        (grpc.StatusCode.UNKNOWN, "Received http2 header with status: 500"),
        (grpc.StatusCode.UNAVAILABLE, "Received http2 header with status: 503"),
        (grpc.StatusCode.UNAVAILABLE, "Received http2 header with status: 429"),
    ],
)
def test_a_server_in_trouble_is_tried_again(wire, stream, code, details):
    with pytest.raises(wire.ConnectionLost, match=f"^{code.name}$"):
        stream(end=Broken(code, details))


def test_a_refusal_ends_the_stream(stream):
    def refuse(task, instruction):
        raise Refused("refused by the server: go")

    with pytest.raises(Refused, match="go"):
        stream("get_properties", answer=refuse)
    assert stream.left == [None]


def test_a_question_from_the_future(wire, stream, goodbye):
    with pytest.raises(wire.ConnectionLost, match="asked something that this version of Flower does not know") as lost:
        stream("fit", type(goodbye)())
    assert not lost.value.was_asked  # it would ask the same again at once
    assert stream.left == [None]
