"""Questions or answers in the records of Flower's messages."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Message, RecordDict


def pack(*parts: bytes) -> RecordDict:
    """Return records that hold these bytes; as arrays, because Flower sends large ones in pieces."""
    arrays = {f"{place}": Array("uint8", (len(part),), "bytes", part) for place, part in enumerate(parts)}
    return RecordDict({"bytes": ArrayRecord(arrays)})


def unpack(message: Message) -> list[bytes]:
    """Return what `pack` has packed into a message; raises KeyError if there is nothing."""
    return [array.data for array in message.content.array_records["bytes"].values()]
