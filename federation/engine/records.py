"""A question or an answer in the records of Flower's messages."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Message, RecordDict


def pack(data: bytes) -> RecordDict:
    """Return records that hold the bytes; as an array, because Flower sends large ones in pieces."""
    return RecordDict({"bytes": ArrayRecord({"bytes": Array("uint8", (len(data),), "bytes", data)})})


def unpack(message: Message) -> bytes:
    """Return the bytes in a message; raises KeyError if there are none."""
    return message.content.array_records["bytes"]["bytes"].data
