"""What each client does just now."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from federation.wire.handshake import Identity, Key, identity_of, key_of

from flwr.server.client_proxy import ClientProxy


class Activity(NamedTuple):
    """What a client does, and since when by `time.monotonic()`."""

    key: Key  # what tells clients apart
    identity: Identity | None  # None: a plain Flower client
    task: str  # Flower's, such as "fit"; "": it waits to be asked; "lost": its connection has ended
    since: float

    @property
    def name(self) -> str:
        """How to call the client in messages."""
        return str(self.identity or "a plain Flower client")

    @property
    def seconds(self) -> float:
        """How long it has been at it."""
        return time.monotonic() - self.since


class Activities:
    """The last activity of each client, also of those whose connection is lost."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Activity] = {}
        self._lock = threading.Lock()

    def note(self, client: ClientProxy, task: str) -> None:
        """Note what a client does from now on."""
        activity = Activity(key_of(client), identity_of(client), task, time.monotonic())
        with self._lock:
            self._by_key[activity.key] = activity
            if task == "lost" and activity.identity is None:  # it would come back as another one
                del self._by_key[activity.key]

    def all(self) -> list[Activity]:
        """List them, sorted by --cid."""
        with self._lock:
            return [self._by_key[key] for key in sorted(self._by_key)]
