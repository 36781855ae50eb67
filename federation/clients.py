"""The clients that are connected to the server: asks each newcomer who it is, and admits or refuses it."""

from __future__ import annotations

import hmac
import random
import secrets
import threading
from collections import deque
from typing import Mapping

from federation.admission import FEDERATION, Refused, objection, proof, read_answer

from flwr.common import GetPropertiesIns, ReconnectIns, Scalar
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.criterion import Criterion

GREETING_TIMEOUT = 30  # seconds


def name_of(client: ClientProxy) -> str:
    """Return how to call a client in messages."""
    if not client.properties:
        return f"plain Flower client {client.cid[:8]}"
    return f"client {client.properties['cid']} on {client.properties['device']}"


def number_of(client: ClientProxy) -> tuple[bool, Scalar]:
    """Return what to sort clients by: their cids; plain Flower clients, which have none, come last."""
    return (False, client.properties["cid"]) if client.properties else (True, client.cid)


class Clients(ClientManager):
    """Flower's registry of clients, with a door.

    A client is available if it is admitted and not at work for the server. Its identity is in its `properties`.
    `federation` is what a newcomer has to share: the first one's identity, as long as any client is there,
    and for good once `is_fixed` is set, because there is a model. Once `run_is_over`, it is no news that clients leave.
    """

    def __init__(self, token: bytes | None, federation: Mapping[str, Scalar]) -> None:
        self.token = token
        self.federation = dict(federation)
        self.is_fixed = bool(federation)
        self.run_is_over = False
        self._newcomers: set[str] = set()  # connections: Flower gives each one a `cid` of its own
        self._admitted: dict[str, ClientProxy] = {}
        self._at_work: set[str] = set()
        self._changed = threading.Condition()
        self._told: deque[str] = deque(maxlen=100)

    def register(self, client: ClientProxy) -> bool:
        """Let a newcomer in as far as the door. Flower can only talk to it after this has returned."""
        with self._changed:
            self._newcomers.add(client.cid)
        threading.Thread(target=self._greet, args=(client,), daemon=True).start()
        return True

    def unregister(self, client: ClientProxy) -> None:
        """Forget a client whose connection has ended."""
        with self._changed:
            self._newcomers.discard(client.cid)
            if self._admitted.pop(client.cid, None) is not None and not self.run_is_over:
                print(f"{name_of(client)} has left, {len(self._admitted)} now", flush=True)

    def all(self) -> dict[str, ClientProxy]:
        """Return the available clients by connection."""
        with self._changed:
            return {cid: client for cid, client in self._admitted.items() if cid not in self._at_work}

    def num_available(self) -> int:
        """Return how many clients are available."""
        return len(self.all())

    def wait_for(self, num_clients: int, timeout: float = GREETING_TIMEOUT) -> bool:
        """Wait until that many clients are available; return whether they are, after `timeout` seconds at the most."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_available() >= num_clients, timeout)

    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """Return random available clients, fewer if there are not that many: rounds.py has done the waiting."""
        clients = [client for client in self.all().values() if criterion is None or criterion.select(client)]
        return random.sample(clients, min(num_clients, len(clients)))

    def start_work(self, client: ClientProxy) -> None:
        """Make a client unavailable, because the server waits for an answer from it."""
        with self._changed:
            self._at_work.add(client.cid)

    def end_work(self, client: ClientProxy) -> None:
        """Make a client available again, if it is still there."""
        with self._changed:
            self._at_work.discard(client.cid)
            self._changed.notify_all()

    def by_process(self) -> dict[Scalar, ClientProxy]:
        """Return the available clients by the client's process, which survives its connections."""
        return {client.properties["process"]: client for client in self.all().values() if client.properties}

    def _greet(self, client: ClientProxy) -> None:
        """Ask a newcomer who it is, and admit it or send it away."""
        nonce = secrets.token_hex(16)
        try:
            answer = client.get_properties(GetPropertiesIns({"nonce": nonce}), GREETING_TIMEOUT, group_id=None)
        except Exception:  # whatever Flower raises when the connection ends
            return
        identity = read_answer(answer.properties)
        try:
            self._check_token(answer.properties.get("proof"), nonce, identity)
            self._admit(client, identity)
        except Refused as refusal:
            who = f"client {identity['cid']} on {identity['device']}" if identity else "a plain Flower client"
            line = f"{who} is refused: {refusal}"
            if line not in self._told:  # once, although a client may try again and again
                self._told.append(line)
                print(line, flush=True)
            self._send_away(client, identity, refusal)

    def _check_token(self, answer: object, nonce: str, identity: Mapping[str, Scalar]) -> None:
        if self.token is None:
            return
        if not identity or not isinstance(answer, str):
            raise Refused("it has no token, and this server wants one (--token_file)")
        if not hmac.compare_digest(answer.encode(), proof(self.token, nonce, identity).encode()):
            raise Refused("it has another token than this server (--token_file)")

    def _admit(self, client: ClientProxy, identity: dict[str, Scalar]) -> None:
        with self._changed:
            if client.cid not in self._newcomers:  # its connection has ended in the meantime
                return
            if not self.is_fixed and not any(other.properties for other in self._admitted.values()):
                self.federation = {name: identity[name] for name in FEDERATION if identity}
            reason = objection(identity, self.federation)
            if reason is not None:
                raise Refused(reason)
            if identity:
                self._make_room(identity)
            self._newcomers.discard(client.cid)
            client.properties = identity
            self._admitted[client.cid] = client
            print(f"{name_of(client)} has joined, {len(self._admitted)} now", flush=True)
            self._changed.notify_all()

    def _make_room(self, identity: dict[str, Scalar]) -> None:
        """Raise Refused if another client has this cid, forget the old connection if it is the same client."""
        for other in list(self._admitted.values()):
            if other.properties.get("cid") == identity["cid"]:
                if other.properties["process"] != identity["process"]:
                    raise Refused(f"its --cid is taken by {name_of(other)}", again=True)
                del self._admitted[other.cid]  # it is dead, only nobody here has noticed yet

    def _send_away(self, client: ClientProxy, identity: Mapping[str, Scalar], refusal: Refused) -> None:
        try:
            if identity:
                config = {"refused": f"refused by the server: {refusal}", "again": refusal.again}
                client.get_properties(GetPropertiesIns(config), GREETING_TIMEOUT, group_id=None)
            else:
                client.reconnect(ReconnectIns(seconds=None), GREETING_TIMEOUT, group_id=None)
        except Exception:  # the connection ends, as it should
            pass
