"""A client that says what it is told to: Flower's messages over gRPC, without Flower's client around them."""

from __future__ import annotations

import queue

import grpc
from flwr.common import Code, GetPropertiesRes, Status, serde
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

OK = Status(Code.OK, "")


class RawClient:
    """A connection to the server at `address`, on which the test speaks; gRPC ends it after `timeout` seconds."""

    def __init__(self, address: str, options: list[tuple[str, int]] | None = None, timeout: float = 60) -> None:
        self.channel = grpc.insecure_channel(address, options)
        self.replies: queue.SimpleQueue = queue.SimpleQueue()
        self.stream = FlowerServiceStub(self.channel).Join(
            iter(self.replies.get, None), timeout=timeout, wait_for_ready=True
        )

    def receive(self) -> ServerMessage:
        """Wait for the next message; raises grpc.RpcError when the server ends the connection."""
        return next(self.stream)

    def reply(self, message: ClientMessage) -> None:
        self.replies.put(message)

    def close(self) -> None:
        self.replies.put(None)
        self.channel.close()


def properties(answer: dict) -> ClientMessage:
    return ClientMessage(get_properties_res=serde.get_properties_res_to_proto(GetPropertiesRes(OK, answer)))


def nonce_of(message: ServerMessage) -> str:
    return serde.get_properties_ins_from_proto(message.get_properties_ins).config["nonce"]


def refusal_of(message: ServerMessage) -> str:
    return serde.get_properties_ins_from_proto(message.get_properties_ins).config["refused"]
