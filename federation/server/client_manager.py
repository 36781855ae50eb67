"""The clients that are connected to the server: asks each newcomer who it is, and admits or refuses it."""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import asdict
from typing import Sequence

from federation.results.activities import Activities
from federation.wire import handshake
from federation.wire.handshake import Identity, Refused, class_list, connection_of, identity_of, key_of, name_of

from flwr.common import GetPropertiesIns
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.criterion import Criterion

GREETING_TIMEOUT = 30  # seconds
MOST_REFUSALS = 100  # that are remembered


class DeviceClientManager(ClientManager):
    """Flower's client manager, with a handshake before a client is admitted.

    A client is available if it is admitted and not at work for the server. Its identity is in its `properties`.
    `member` is the client that newcomers must match: the first one, until all have left or, once there is a model and
    `is_fixed` is set, for good. Newcomers receive the `classes`, if there are any, and must have them.
    """

    def __init__(
        self,
        token: bytes | None = None,
        member: Identity | None = None,
        quiet: bool = False,
        classes: Sequence[str] = (),
    ) -> None:
        self.token = token
        self.member = member
        self.quiet = quiet  # about who joins and who leaves
        self.classes = classes
        self.is_fixed = member is not None
        self.activities = Activities()
        self.random = random.Random()  # what `sample` draws from
        self._newcomers: set[str] = set()  # connections
        self._admitted: dict[str, ClientProxy] = {}  # by connection
        self._by_cid: dict[int, ClientProxy] = {}  # those admitted, by --cid; plain Flower clients have none
        self._at_work: set[str] = set()  # connections
        self._changed = threading.Condition()
        self._refusals: deque[str] = deque(maxlen=MOST_REFUSALS)  # the last lines: strangers may send endless new ones

    def register(self, client: ClientProxy) -> bool:
        """Note a newcomer, and greet it in a thread: Flower can only talk to it after this has returned."""
        with self._changed:
            self._newcomers.add(connection_of(client))
        name = f"greeting {connection_of(client)}"
        threading.Thread(target=self._greet, args=(client,), daemon=True, name=name).start()
        return True

    def unregister(self, client: ClientProxy) -> None:
        """Forget a client whose connection has ended."""
        with self._changed:
            self._newcomers.discard(connection_of(client))
            was_admitted = self._admitted.pop(connection_of(client), None) is not None
            if was_admitted:
                self.activities.note(client, "lost")
                identity = identity_of(client)
                if identity is not None:
                    del self._by_cid[identity.cid]
                if not self._by_cid and not self.is_fixed:
                    self.member = None
            number = len(self._admitted)
        if was_admitted and not self.quiet:  # printed without the lock: a terminal may block
            print(f"{name_of(client)} has left, {number} now")

    def all(self) -> dict[str, ClientProxy]:
        """Return the available clients by connection."""
        with self._changed:
            return {name: client for name, client in self._admitted.items() if name not in self._at_work}

    def num_available(self) -> int:
        """Return how many clients are available."""
        return len(self.all())

    def wait_for(self, num_clients: int, timeout: float = GREETING_TIMEOUT) -> bool:
        """Wait until that many clients are available, at most `timeout` seconds; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_available() >= num_clients, timeout)

    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """Return random available clients, fewer if there are not that many: rounds.py has waited already."""
        clients = [client for client in self.all().values() if criterion is None or criterion.select(client)]
        clients.sort(key=key_of)  # their order of arrival is random
        return self.random.sample(clients, min(num_clients, len(clients)))

    def start_work(self, client: ClientProxy, task: str) -> None:
        """Make a client unavailable, because the server waits for its answer to a task such as "fit"."""
        with self._changed:
            self._at_work.add(connection_of(client))
            self.activities.note(client, task)

    def end_work(self, client: ClientProxy) -> None:
        """Make a client available again, if it is still there."""
        with self._changed:
            self._at_work.discard(connection_of(client))
            if connection_of(client) in self._admitted:
                self.activities.note(client, "")
            self._changed.notify_all()

    def by_cid(self) -> dict[int, ClientProxy]:
        """Return the available clients by their --cid, which survives connections and restarts."""
        with self._changed:
            return {cid: client for cid, client in self._by_cid.items() if connection_of(client) not in self._at_work}

    def _greet(self, client: ClientProxy) -> None:
        """Ask a newcomer who it is, and admit or refuse it."""
        asked = handshake.question(self.classes)
        try:
            answered = client.get_properties(GetPropertiesIns(asked), GREETING_TIMEOUT, group_id=None).properties
        except Exception:  # whatever Flower raises when the connection ends
            return
        identity = Identity.read(answered)
        try:
            handshake.check(self.token, asked, answered, identity)
            self._admit(client, identity)
        except Refused as refused:
            line = f"{identity or 'a plain Flower client'} is refused: {refused}"
            if line not in self._refusals:  # once, although a client may try again and again
                self._refusals.append(line)
                print(line)
            handshake.send_away(client, identity, refused, GREETING_TIMEOUT)

    def _admit(self, client: ClientProxy, identity: Identity | None) -> None:
        """Make a newcomer available; raises Refused if it does not match."""
        with self._changed:
            if connection_of(client) not in self._newcomers:  # its connection has ended in the meantime
                return
            if identity is not None:
                self._check(identity)
                old = self._by_cid.get(identity.cid)
                if old is not None:  # the client is back before the end of its connection was noticed
                    del self._admitted[connection_of(old)]
                self._by_cid[identity.cid] = client
                self.member = self.member or identity
                client.properties = asdict(identity)  # where strategies may look
            self._newcomers.discard(connection_of(client))
            self._admitted[connection_of(client)] = client
            self.activities.note(client, "")
            number = len(self._admitted)
            self._changed.notify_all()
        if not self.quiet:
            print(f"{name_of(client)} has joined, {number} now")

    def _check(self, newcomer: Identity) -> None:
        """Raise Refused if a newcomer does not match the others."""
        if self.classes and newcomer.classes != class_list(self.classes):
            found, wanted = newcomer.classes or f"those of {newcomer.dataset}", class_list(self.classes)
            raise Refused(f"its classes are {found}, the server's {wanted}: start it with --photos")
        reason = None if self.member is None else handshake.mismatch(newcomer, self.member)
        if reason is not None:
            raise Refused(reason)
        namesake = self._by_cid.get(newcomer.cid)
        other = None if namesake is None else identity_of(namesake)
        if other is not None and other.instance != newcomer.instance:
            raise Refused(f"its --cid is taken by {other}", again=True)
