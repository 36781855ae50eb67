"""Who may take part: what a client tells about itself, how it proves that it has the token, what speaks against it.

The server asks every newcomer for its properties before it sends any weights. The question holds a random number
used once, and the answer the client's identity and, if there is a token, HMAC-SHA256(token, number and identity). So
the token never travels, and an answer that somebody recorded is worth nothing for the next question.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import secrets
import sys
import zlib
from pathlib import Path
from typing import Mapping, Sequence

from federation.device import describe

import numpy as np

MAX_TEXT = 300  # characters; what strangers send ends up on a terminal and in files
IDENTITY = {
    "cid": int, "device": str, "script": str, "dataset": str, "num_clients": int, "model": str,
    "process": str,  # random; tells a client that has lost its connection from another one with its cid
}  # fmt: skip
FEDERATION = ("script", "dataset", "num_clients", "model")  # what all clients of a federation share


class Refused(BaseException):
    """The server does not want this client, or the client this server; the message says why.

    Not an Exception, because Flower shows a traceback of these. `again`: it may go better later.
    """

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def identity_of_client(args: argparse.Namespace, model: Sequence[np.ndarray]) -> dict[str, int | str]:
    """Return the identity of the client with these arguments and this model."""
    return {
        "cid": args.cid,
        "device": printable(describe()),
        "script": printable(Path(sys.argv[0]).name),
        "dataset": args.dataset,
        "num_clients": args.num_clients,
        "model": fingerprint(model),
        "process": secrets.token_hex(8),
    }


def fingerprint(model: Sequence[np.ndarray]) -> str:
    """Describe the arrays of a model so that other shapes give another text: `10 arrays, 44426 numbers, 9f2c81aa`."""
    shapes = repr([(tuple(array.shape), str(array.dtype)) for array in model])
    return f"{len(model)} arrays, {sum(array.size for array in model)} numbers, {zlib.crc32(shapes.encode()):08x}"


def proof(token: bytes, nonce: str, identity: Mapping[str, int | str]) -> str:
    """Return what only a client with the token can answer to a question with `nonce`, in hexadecimal."""
    said = json.dumps([nonce, [identity[name] for name in IDENTITY]])
    return hmac.new(token, said.encode(), hashlib.sha256).hexdigest()


def read_answer(properties: Mapping[str, object]) -> dict[str, int | str]:
    """Return the identity in a client's answer, or {} if there is none: a plain Flower client."""
    if not all(type(properties.get(name)) is kind for name, kind in IDENTITY.items()):
        return {}
    return {name: properties[name] if kind is int else printable(properties[name]) for name, kind in IDENTITY.items()}


def printable(text: str) -> str:
    """Return a text from the network without what could play tricks on a terminal, on one line, not too long."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_TEXT]


def objection(identity: Mapping[str, int | str], federation: Mapping[str, int | str]) -> str | None:
    """Return why a client cannot join the federation, known by its first client's identity; None if it can."""
    if not identity or not federation:
        return None
    if identity["dataset"] != federation["dataset"]:
        return f"it has {identity['dataset']}, this federation {federation['dataset']}"
    if identity["num_clients"] != federation["num_clients"]:
        ours, theirs = federation["num_clients"], identity["num_clients"]
        return f"it cuts the data set into {theirs} partitions (--num_clients), this federation into {ours}"
    if identity["model"] != federation["model"]:
        found, wanted = (f"{side['script']} ({side['model']})" for side in (identity, federation))
        return f"it trains the model of {found}, this federation that of {wanted}"
    return None
