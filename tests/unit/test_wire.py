"""The client's end of the wire: the parts of Flower that are not public, messages in and out, how a stream ends."""

from __future__ import annotations

import ast
import contextlib
import importlib
import queue
import types
from concurrent.futures import ThreadPoolExecutor

from federation.handshake import Refused

import flwr
import grpc
import pytest
from fakes import MODEL, OK, encoded
from flwr.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
)
from processes import ROOT, free_address

TASKS = {
    "get_properties": (GetPropertiesIns({"nonce": "abc"}), GetPropertiesRes(OK, {"cid": 3, "device": "pi"})),
    "get_parameters": (GetParametersIns({}), GetParametersRes(OK, encoded(MODEL))),
    "fit": (
        FitIns(encoded(MODEL), {"epochs": 3, "rate": 0.5, "text": "x", "bytes": b"x", "bool": True}),
        FitRes(OK, encoded(MODEL), 20, {"train_loss": 0.25, "count": -3}),
    ),
    "evaluate": (EvaluateIns(encoded(MODEL), {"server_round": 2}), EvaluateRes(OK, 0.5, 5, {"accuracy": 0.75})),
}
PARTS = {
    "flwr.proto.transport_pb2": ["ClientMessage", "ServerMessage", "Reason"],
    "flwr.proto.transport_pb2_grpc": ["FlowerServiceStub"],
    "flwr.common.serde": [
        f"{task}_{what}"
        for task in TASKS
        for what in ("ins_from_proto", "ins_to_proto", "res_to_proto", "res_from_proto")
    ],
}


@pytest.fixture
def wire():
    """The module, imported here: without a part, its test should fail with a sentence, not the import of this file."""
    return importlib.import_module("federation.client.wire")


@pytest.fixture
def serde():
    return importlib.import_module("flwr.common.serde")


@pytest.fixture
def server_message():
    return importlib.import_module("flwr.proto.transport_pb2").ServerMessage


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PARTS.items() for name in names])
def test_a_part_of_flower_that_is_not_public(module, name):
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    assert found is not None, (
        f"Flower {flwr.__version__} has no {module}.{name}, which federation/client/wire.py is built on: find what has "
        f"taken its place, or stay with an older Flower"
    )


def test_only_the_wire_uses_such_parts():
    private = [module for module in PARTS if module != "flwr.common.serde"]
    found = {}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("federation/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr"):
                names = [alias.name for alias in node.names]
                private_names = names if node.module.startswith("flwr.proto") else {"serde"} & set(names)
                assert not node.module.endswith("serde"), path
                if private_names:
                    found.setdefault(path.name, {})[node.module] = private_names
    expected = {"flwr.common": ["serde"], **{module: PARTS[module] for module in private}}
    assert {name: {m: set(n) for m, n in modules.items()} for name, modules in found.items()} == {
        "wire.py": {module: set(names) for module, names in expected.items()}
    }


@pytest.mark.parametrize("task", TASKS)
def test_an_instruction_arrives_as_it_was_sent(wire, serde, server_message, task):
    instruction = TASKS[task][0]
    sent = server_message(**{f"{task}_ins": getattr(serde, f"{task}_ins_to_proto")(instruction)}).SerializeToString()
    assert wire._decode(server_message.FromString(sent)) == (task, instruction)


@pytest.mark.parametrize("task", TASKS)
def test_a_result_arrives_as_it_was_sent(wire, serde, task):
    result = TASKS[task][1]
    message = wire.ClientMessage.FromString(wire._encode(task, result).SerializeToString())
    assert message.WhichOneof("msg") == f"{task}_res"
    assert getattr(serde, f"{task}_res_from_proto")(getattr(message, f"{task}_res")) == result


def goodbye(server_message):
    return server_message(reconnect_ins=server_message.ReconnectIns(seconds=0))


def test_the_goodbye(wire, server_message):
    assert wire._decode(goodbye(server_message)) == ("reconnect", None)


class Broken(grpc.RpcError):
    """The end of a stream, as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, details: str | None = "") -> None:
        self.code = lambda: code
        self.details = lambda: details


@pytest.fixture
def stream(wire, serde, server_message, monkeypatch):
    """Return a function that has `answer_server` answer a server's messages, after which the stream ends as told.

    `stream.sent` is what the client sent before that, `stream.left` what it put last for gRPC to take.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def stream(*messages, end=None, answer=lambda task, instruction: TASKS[task][1]):
        def join(_, replies):
            for message in messages:
                if isinstance(message, str):
                    instruction = getattr(serde, f"{message}_ins_to_proto")(TASKS[message][0])
                    message = server_message(**{f"{message}_ins": instruction})
                yield message
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


def test_every_message_is_answered_until_the_goodbye(stream, server_message):
    asked = []

    def answer(task, instruction):
        asked.append((task, instruction))
        return TASKS[task][1]

    stream(*TASKS, goodbye(server_message), answer=answer)
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


def test_a_question_from_the_future(wire, server_message):
    with pytest.raises(wire.ConnectionLost, match="asked something that this version of Flower does not know"):
        wire._decode(server_message())


@pytest.mark.parametrize(
    "result",
    [
        FitRes(OK, encoded(MODEL), 20, {"steps": 2**70}),
        FitRes(OK, encoded(MODEL), 2**64, {}),
        FitRes(OK, encoded(MODEL), 20, {"text": "\ud800"}),
        FitRes(OK, encoded(MODEL), 20, {"list": [1, 2]}),
    ],
)
def test_a_result_that_cannot_be_sent(wire, serde, result):
    message = wire._encode("fit", result)
    status = serde.fit_res_from_proto(message.fit_res).status
    assert status.code != OK.code and status.message.startswith("its result cannot be sent (")
