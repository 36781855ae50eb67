"""run.json in the folder of results: what is needed to repeat the run, and who took part in it."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Mapping

from federation.files import replaced
from federation.wire.addresses import Address
from federation.wire.handshake import Identity

NAME = "run.json"


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's run.json; {} if there is none or it is damaged."""
    try:
        kept = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {"seed": int(kept["seed"]), "starts": list(kept["starts"]), "clients": dict(kept["clients"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class RunFile:
    """Keeps run.json up to date. If it cannot be written, the run goes on, and the next `save` tries again."""

    def __init__(self, folder: Path, seed: int, flags: Mapping[str, object]) -> None:
        """Begin the file, or continue the one in the folder: a resumed run has more than one start."""
        self.path = folder / NAME
        kept = read(folder)
        start = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "flags": {name: _plain(value) for name, value in flags.items()},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in ("flwr", "numpy")}},
        }
        self.starts = [*kept.get("starts", []), start]
        self.seed = seed
        self.clients: dict[str, Any] = kept.get("clients", {})  # by --cid

    def add(self, client: Identity | None) -> None:
        """Add a client that took part; a plain Flower client has no identity."""
        if client is not None:
            self.clients[str(client.cid)] = asdict(client)

    def save(self) -> None:
        """Write the file, if that is possible."""
        run = {"seed": self.seed, "starts": self.starts, "clients": self.clients}
        with contextlib.suppress(OSError), replaced(self.path) as file:
            file.write(json.dumps(run, indent=2).encode())


def _plain(value: object) -> object:
    """A flag's value, or "secret" instead of a secret."""
    if value is None or isinstance(value, (bool, int, float, str, list)):
        return value
    return str(value) if isinstance(value, (Path, Address)) else "secret"
