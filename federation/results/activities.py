"""What each client is doing now."""

from __future__ import annotations

import time
from typing import NamedTuple

from federation.wire.handshake import Identity, Key, identity_of, key_of

from flwr.server.client_proxy import ClientProxy


class Activity(NamedTuple):
    """What a client is doing, and since when, by `time.monotonic()`."""

    key: Key  # what tells clients apart
    identity: Identity | None  # None: a plain Flower client
    task: str  # Flower's, such as "fit"; "": it waits to be asked; "lost": its connection has ended
    since: float


class Activities:
    """The last activity of each client, including those whose connection is lost."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Activity] = {}

    def note(self, client: ClientProxy, task: str) -> None:
        """Note what a client is doing from now on. Threads must take turns to call this."""
        activity = Activity(key_of(client), identity_of(client), task, time.monotonic())
        if task == "lost" and activity.identity is None:  # it would come back as a new one
            self._by_key.pop(activity.key, None)
        else:
            self._by_key[activity.key] = activity

    def all(self) -> list[Activity]:
        """List them, sorted by --cid."""
        return [activity for _, activity in sorted(self._by_key.copy().items())]  # a copy: others may note meanwhile
