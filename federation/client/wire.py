"""The client's end of a connection: one stream of messages in and answers out, the same in all of Flower since 1.0.

Flower's own start_client leaves a thread behind for each connection that breaks, and takes seconds and 50 MB more to
import. Hence the one place here that uses parts of Flower that are not public: `flwr.proto` and `flwr.common.serde`.
"""

from __future__ import annotations

import queue
from typing import Any, Callable

from federation import MAX_MESSAGE_BYTES
from federation.addresses import ascii_address
from federation.client.probe import somebody_else
from federation.handshake import Refused

import grpc
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetParametersRes,
    GetPropertiesRes,
    Parameters,
    Status,
    serde,
)
from flwr.proto.transport_pb2 import ClientMessage, Reason, ServerMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A proxy, from variables such as http_proxy, is for the internet; a federation is between neighbours.
    ("grpc.enable_http_proxy", 0),
    ("grpc.address_http_proxy_enabled_addresses", ""),  # the same for GRPC_ADDRESS_HTTP_PROXY
]

# Answers of others than Flower's server, for instance of a SuperLink: it has no such service, or lets nobody in.
NOT_FLOWERS = (
    grpc.StatusCode.UNIMPLEMENTED,  # HTTP's 404, too
    grpc.StatusCode.PERMISSION_DENIED,  # 403
    grpc.StatusCode.UNAUTHENTICATED,  # 401
)


class ConnectionLost(Exception):
    """The connection has ended, not by the server's goodbye; the message says how.

    `was_asked`: whether the server had asked something before.
    """

    def __init__(self, how: str, was_asked: bool) -> None:
        super().__init__(how)
        self.was_asked = was_asked


def answer_server(address: str, root_certificate: bytes | None, answer: Callable[[str, Any], Any]) -> None:
    """Answer the server's messages until it says that the run is over.

    `answer(task, instruction)` returns the result of a task: `get_properties`, `get_parameters`, `fit` or `evaluate`,
    with Flower's types such as FitIns and FitRes. Raises ConnectionLost, and Refused if the next connection would end
    in the same way.
    """
    was_asked = False
    answers: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
    with _channel(address, root_certificate) as channel:
        try:
            for message in FlowerServiceStub(channel).Join(iter(answers.get, None)):
                was_asked = True
                task, instruction = _decode(message)
                del message  # as large as the model
                if task == "reconnect":
                    goodbye = ClientMessage.DisconnectRes(reason=Reason.ACK)
                    answers.put(ClientMessage(disconnect_res=goodbye))
                    return
                answers.put(_encode(task, answer(task, instruction)))
                del instruction
            raise ConnectionLost("it hung up", was_asked)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
                limit = MAX_MESSAGE_BYTES // 1024**2
                raise Refused(f"the model is larger than a message can be, {limit} MB") from error
            if _is_somebody_else(error):
                raise somebody_else(address) from error
            raise ConnectionLost(error.code().name, was_asked) from error
        finally:
            answers.put(None)  # ends gRPC's thread that takes the answers


def _channel(address: str, root_certificate: bytes | None) -> grpc.Channel:
    address = ascii_address(address)
    if root_certificate is None:
        return grpc.insecure_channel(address, OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root_certificate), OPTIONS)


def _is_somebody_else(error: grpc.RpcError) -> bool:
    """Tell whether who has answered does not know Flower's clients. Other errors can be a server of ours in trouble."""
    unwanted = "http2 header with status: 4" in (error.details() or "")  # a web server, in HTTP/2
    return error.code() in NOT_FLOWERS or (unwanted and error.code() != grpc.StatusCode.UNAVAILABLE)


def _decode(message: ServerMessage) -> tuple[str, Any]:
    """Return the task in a message and Flower's instruction, such as ("fit", FitIns(...))."""
    field = message.WhichOneof("msg")  # such as fit_ins
    if field is None:
        raise ConnectionLost("it asked something that this version of Flower does not know", was_asked=False)
    task = field[: -len("_ins")]
    if task == "reconnect":
        return task, None
    return task, getattr(serde, f"{field}_from_proto")(getattr(message, field))


def _encode(task: str, result: Any) -> ClientMessage:
    """Return the message with the result of a task, such as a FitRes; with a failure if it cannot be sent."""
    field = f"{task}_res"
    encode = getattr(serde, f"{field}_to_proto")
    try:
        return ClientMessage(**{field: encode(result)})
    except (TypeError, ValueError) as error:  # for instance a metric that is larger than 64 bits
        return ClientMessage(**{field: encode(failure(task, f"its result cannot be sent ({error})"))})


def failure(task: str, reason: str) -> GetPropertiesRes | GetParametersRes | FitRes | EvaluateRes:
    """Return the result of a task that failed, as Flower has it, with the reason."""
    # Of Flower's codes, "not implemented" is the one that is not OK and that every version knows.
    status = Status(Code.FIT_NOT_IMPLEMENTED, reason)
    if task == "get_properties":
        return GetPropertiesRes(status, {})
    if task == "get_parameters":
        return GetParametersRes(status, Parameters([], ""))
    if task == "fit":
        return FitRes(status, Parameters([], ""), 0, {})
    return EvaluateRes(status, 0.0, 0, {})
