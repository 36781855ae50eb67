"""The client's end of a connection: one stream of messages in and answers out, the same in all of Flower since 1.0.

Flower's own start_client leaves a thread behind for each connection that breaks, and takes seconds and 50 MB more to
import.
"""

from __future__ import annotations

import queue

from federation.wire import MAX_MESSAGE_BYTES
from federation.wire.addresses import Address
from federation.wire.handshake import Refused
from federation.wire.messages import Answer, read_question, write_answer
from federation.wire.probe import somebody_else

import grpc
from flwr.proto.transport_pb2 import ClientMessage, Reason
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A proxy, from variables such as http_proxy, is for the internet; a federation is on the local network.
    ("grpc.enable_http_proxy", 0),
]

# Replies of something that is not Flower's server, such as a SuperLink: no such service, or no access.
NOT_FLOWERS = (
    grpc.StatusCode.UNIMPLEMENTED,  # a web server's 404, too
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


class ConnectionLost(Exception):
    """The connection has ended without the server's goodbye; the message says how.

    `was_asked`: whether the server had sent a request before.
    """

    def __init__(self, how: str, was_asked: bool) -> None:
        super().__init__(how)
        self.was_asked = was_asked


def answer_server(address: Address, root_certificate: bytes | None, name: str | None, answer: Answer) -> None:
    """Answer the server's messages until it ends the run. Its certificate is checked as by `probe`.

    `answer(task, instruction)` returns the result of a task: `get_properties`, `get_parameters`, `fit` or `evaluate`,
    with Flower's types such as FitIns and FitRes. Raises ConnectionLost, or Refused if the next connection would end
    the same way.
    """
    was_asked = False
    answers: queue.SimpleQueue[ClientMessage | None] = queue.SimpleQueue()
    with _channel(address, root_certificate, name) as channel:
        try:
            for message in FlowerServiceStub(channel).Join(iter(answers.get, None)):
                was_asked = True
                task, instruction = read_question(message)
                del message  # as large as the model
                if instruction is None:
                    answers.put(ClientMessage(disconnect_res=ClientMessage.DisconnectRes(reason=Reason.ACK)))
                    return
                answers.put(write_answer(task, answer(task, instruction)))
                del instruction
            raise ConnectionLost("it closed the connection", was_asked)
        except ValueError as error:
            raise ConnectionLost(f"{error}", was_asked=False) from error
        except grpc.RpcError as error:
            raise _reason(error, address, was_asked) from error
        finally:
            answers.put(None)  # ends gRPC's thread that reads the answers


def _channel(address: Address, root_certificate: bytes | None, name: str | None) -> grpc.Channel:
    if root_certificate is None:
        return grpc.insecure_channel(str(address), OPTIONS)
    options = OPTIONS if name is None else [*OPTIONS, ("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(str(address), grpc.ssl_channel_credentials(root_certificate), options)


def _reason(error: grpc.RpcError, address: Address, was_asked: bool) -> Refused | ConnectionLost:
    """Return the exception to raise for gRPC's error."""
    code = error.code()
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return Refused(f"the model is larger than the limit of a message, {MAX_MESSAGE_BYTES // 1024**2} MB")
    if code in NOT_FLOWERS:
        return somebody_else(address)
    broken = code == grpc.StatusCode.UNAVAILABLE  # gRPC's code for most failures of a network
    return ConnectionLost("the connection broke" if broken else f"gRPC error {code.name}", was_asked)
