"""The handshake: who a client is, how it proves that it has the token, what does not match. For both sides.

The server asks every newcomer for its properties before it sends any weights. The question holds a nonce, a random
number used once; the answer holds the client's identity and, if there is a token, HMAC-SHA256(token, nonce and
identity). So the token itself is never sent, and a recorded answer is useless for the next question.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import json
import math
import secrets
import zlib
from typing import TYPE_CHECKING, Mapping, Sequence, Tuple, get_type_hints

from federation.flags import checked_names

import numpy as np
from flwr.common import GetPropertiesIns, ReconnectIns, Scalar

if TYPE_CHECKING:
    from flwr.server.client_proxy import ClientProxy  # which clients need not import

Key = Tuple[bool, int, str]  # see `key_of`
REMEDIES = {"mnist": "with --mnist", "photos": "with --photos", "cifar10": "without {}"}  # by the data set wanted
MAX_TEXT = 300  # characters; what strangers send ends up on a terminal and in files


class Refused(Exception):
    """The server refused this client, or the client refused this server; the message says why.

    `again`: it may work later.
    """

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a client reports about itself. A federation shares its data set, partitioning, classes and model."""

    cid: int  # the flag --cid; not Flower's `ClientProxy.cid`, which is the number of a connection
    device: str
    instance: str  # random; distinguishes a client that reconnects from another one with its cid
    script: str
    dataset: str
    num_clients: int
    model: str  # see `fingerprint`
    alpha: str  # the flag --alpha; empty: the data set is partitioned evenly
    classes: str  # see `class_list`; empty: the data set's own
    versions: str  # of Python and the packages; not compared
    keeps_model: bool  # a digest is enough to send it a model that it has; not compared

    @classmethod
    def read(cls, properties: Mapping[str, Scalar]) -> Identity | None:
        """The identity in a client's properties; None if there is none: a plain Flower client."""
        kinds = get_type_hints(cls)
        if any(type(properties.get(name)) is not kind for name, kind in kinds.items()):
            return None
        values = {name: printable(value) if isinstance(value := properties[name], str) else value for name in kinds}
        return cls(**values)  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        return f"client {self.cid} on {self.device}"


def connection_of(client: ClientProxy) -> str:
    """The name of a client's connection, which Flower invents and calls `cid`: it is not the flag --cid."""
    return client.cid


def identity_of(client: ClientProxy) -> Identity | None:
    """Who a client is, once the client manager has admitted it; None for a plain Flower client."""
    # Not by `read`: the client manager has written the properties, from an identity.
    return Identity(**client.properties) if client.properties else None  # type: ignore[arg-type]


def name_of(client: ClientProxy) -> str:
    """How to call a client in messages."""
    return str(identity_of(client) or f"plain Flower client {connection_of(client)[:8]}")


def key_of(client: ClientProxy) -> Key:
    """A key that stays the same over a client's connections and sorts clients: by --cid, plain Flower clients last."""
    identity = identity_of(client)
    return (True, 0, connection_of(client)) if identity is None else (False, identity.cid, "")


def fingerprint(model: Sequence[np.ndarray]) -> str:
    """Describe the arrays of a model so that other shapes give other texts: `10 arrays, 44426 numbers, 9f2c81aa`."""
    shapes = repr([(tuple(array.shape), str(array.dtype)) for array in model])
    return f"{len(model)} arrays, {sum(array.size for array in model)} numbers, {zlib.crc32(shapes.encode()):08x}"


def class_list(names: Sequence[str]) -> str:
    """Names of classes as JSON, so that different names give different texts; empty if there are none."""
    text = json.dumps(list(names), ensure_ascii=False) if names else ""
    digest = f"... {zlib.crc32(text.encode()):08x}" if len(text) > MAX_TEXT else ""  # in place of the last ones
    return printable(text[: MAX_TEXT - len(digest)] + digest)


def printable(text: str) -> str:
    """A text from the network made safe to print: without control characters, on one line, not too long."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_TEXT]


def as_number(value: object) -> float | None:
    """A value from the network if it is a finite number, else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def question(classes: Sequence[str] = ()) -> dict[str, Scalar]:
    """The server's question to a newcomer, with the names of the classes if it knows them."""
    told: dict[str, Scalar] = {"classes": json.dumps(list(classes))} if classes else {}
    return {"nonce": secrets.token_hex(16), **told}


def told_classes(config: Mapping[str, Scalar]) -> list[str]:
    """The names of the classes in a `question()`; none if it has none. Raises ValueError if they are invalid."""
    return checked_names(json.loads(str(config["classes"]))) if "classes" in config else []


def answer(config: Mapping[str, Scalar], identity: Identity, token: bytes | None) -> dict[str, Scalar]:
    """A client's answer to `question()`; raises Refused if `config` is what `send_away` sends instead."""
    if "refused" in config:
        raise Refused(printable(str(config["refused"])), again=bool(config.get("again")))
    properties: dict[str, Scalar] = dataclasses.asdict(identity)
    if token is not None:
        properties["proof"] = proof(token, config.get("nonce"), identity)
    return properties


def proof(token: bytes, nonce: object, identity: Identity) -> str:
    """The proof, in hexadecimal, that only a client with the token can give to a question with `nonce`."""
    message = json.dumps([nonce, *dataclasses.astuple(identity)])
    return hmac.new(token, message.encode(), hashlib.sha256).hexdigest()


def check(
    token: bytes | None, asked: Mapping[str, Scalar], answered: Mapping[str, Scalar], identity: Identity | None
) -> None:
    """Raise Refused if the server has a token and the answer to `question()` does not prove that the client has it."""
    if token is None:
        return
    shown = answered.get("proof")
    if identity is None or not isinstance(shown, str):
        raise Refused("it has no token, but this server requires one (--token_file)")
    if not hmac.compare_digest(shown.encode(), proof(token, asked["nonce"], identity).encode()):
        raise Refused("it has another token than this server (--token_file)")


def send_away(client: ClientProxy, identity: Identity | None, refused: Refused, timeout: float) -> None:
    """Tell a newcomer that the server refuses it, and why; a plain Flower client only learns that the run is over."""
    refusal: dict[str, Scalar] = {"refused": f"refused by the server: {refused}", "again": refused.again}
    with contextlib.suppress(Exception):  # the connection ends, as it should
        if identity is None:
            client.reconnect(ReconnectIns(seconds=None), timeout, group_id=None)
        else:
            client.get_properties(GetPropertiesIns(refusal), timeout, group_id=None)


def mismatch(newcomer: Identity, member: Identity) -> str | None:
    """The reason why a client cannot join a federation with that member, and what to do; None if it can."""
    if newcomer.script != member.script and newcomer.model != member.model:
        found, wanted = (f"{who.script} ({who.model})" for who in (newcomer, member))
        return f"it trains the model of {found}, this federation that of {wanted}: start {member.script}"
    if newcomer.dataset != member.dataset:
        remedy = REMEDIES.get(member.dataset, "").format("--photos" if newcomer.dataset == "photos" else "--mnist")
        return f"it has {newcomer.dataset}, this federation {member.dataset}: start it {remedy}"
    if newcomer.num_clients != member.num_clients:
        reason = f"it has {newcomer.num_clients} partitions, this federation {member.num_clients}"
        return f"{reason}: start it with --num_clients {member.num_clients}"
    if newcomer.alpha != member.alpha:
        found, wanted = (f"with --alpha {who.alpha}" if who.alpha else "without --alpha" for who in (newcomer, member))
        return f"it was started {found}, the others {wanted}: start it {wanted}"
    if newcomer.classes != member.classes:
        found, wanted = (who.classes or f"those of {who.dataset}" for who in (newcomer, member))
        is_partition = member.dataset != "photos"
        remedy = "make its partition again with these" if is_partition else "name them on the server (--classes)"
        return f"its classes are {found}, this federation's {wanted}: {remedy}"
    if newcomer.model != member.model:
        found, wanted = newcomer.model, member.model
        return f"its model has {found}, this federation's {wanted}: use the others' {member.script}"
    return None
