"""Ask many clients something at the same time, with a deadline; ask again after a lost connection."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, List, Tuple

from federation.server.client_manager import DeviceClientManager
from federation.wire.handshake import identity_of, key_of
from federation.wire.models import Outbound, lacks_the_model, size

from flwr.server.client_proxy import ClientProxy

PATIENCE = 10  # seconds for a client to come back after its connection broke
LATER = 1  # seconds by which Flower's timeout, which ends the connection, is longer than the one here
PAUSE = 0.2  # seconds between checks for clients that are back

Instructions = List[Tuple[ClientProxy, Any]]  # Flower's, such as FitIns


@dataclass(frozen=True)
class Answer:
    """The answer of a client: Flower's result, such as a FitRes, or the reason why there is none."""

    client: ClientProxy
    result: Any = None
    reason: str = ""


class Dispatch:
    """Calls `task`, a method of ClientProxy such as "fit", for many clients; takes at most `timeout` seconds.

    Instructions with the global model, `outbound`, go out in the shortest form that the client understands. `traffic`
    is what was sent and received: a client, and the bytes of a model in each direction.
    """

    def __init__(
        self, clients: DeviceClientManager, task: str, timeout: float, outbound: Outbound | None = None
    ) -> None:
        self.clients = clients
        self.task = task
        self.give_up_at = time.monotonic() + timeout
        self.outbound = outbound
        self.traffic: list[tuple[ClientProxy, int, int]] = []
        self.instructions: dict[ClientProxy, Any] = {}
        self.answers: list[Answer] = []
        self.at_work: set[ClientProxy] = set()
        self.lost: dict[ClientProxy, Answer] = {}  # clients that may come back, and the answers if they do not
        self.restarted: set[int] = set()  # cids
        self.lost_at = 0.0  # when the last one was lost
        self.arrivals: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def run(self, instructions: Instructions, patience: float = PATIENCE) -> list[Answer]:
        """Ask each client with its instruction; return the answers, sorted by the clients' --cid.

        A client that loses its connection and comes back is asked again, while others are at work and for at least
        `patience` seconds.
        """
        for client, instruction in instructions:
            self._send(client, instruction)
        while time.monotonic() < self.give_up_at:
            if not self.at_work and (not self.lost or time.monotonic() > self.lost_at + patience):
                break
            try:
                self._take(self.arrivals.get(timeout=PAUSE))
            except queue.Empty:
                self._send_again()
        late = [Answer(client, reason="no answer in time") for client in self.at_work]
        return sorted([*self.answers, *self.lost.values(), *late], key=lambda answer: key_of(answer.client))

    def _take(self, answer: Answer) -> None:
        if answer.client not in self.at_work:  # it has been asked again over a newer connection
            return
        self.at_work.discard(answer.client)
        if answer.result is None and identity_of(answer.client):  # a plain Flower client never comes back
            self.lost[answer.client], self.lost_at = answer, time.monotonic()
        else:
            self.answers.append(answer)

    def _send(self, client: ClientProxy, instruction: Any) -> None:
        self.instructions[client] = instruction
        self.at_work.add(client)
        self.clients.start_work(client, self.task)
        threading.Thread(target=self._wait_for_answer, args=(client, instruction), daemon=True).start()

    def _wait_for_answer(self, client: ClientProxy, instruction: Any) -> None:
        try:
            for form in self._forms(client, instruction):
                self.traffic.append((client, size(form), 0))
                # Always with a timeout: without one, Flower uses that of the previous call.
                seconds = self.give_up_at + LATER - time.monotonic()
                result = getattr(client, self.task)(form, seconds, group_id=None)
                self.traffic.append((client, 0, size(result)))
                if not lacks_the_model(result):
                    break
        except Exception as error:
            self.arrivals.put(Answer(client, reason=f"its connection ended ({type(error).__name__})"))
            time.sleep(1)  # meanwhile, a client whose connection has ended is unregistered
            self.clients.end_work(client)
        else:
            self.clients.end_work(client)
            self.arrivals.put(Answer(client, result))

    def _forms(self, client: ClientProxy, instruction: Any) -> list[Any]:
        """The instruction in the forms to try one after the other, until the client has the model."""
        identity = identity_of(client)
        if self.outbound is None or identity is None:
            return [instruction]
        forms = self.outbound.forms(instruction.parameters)
        if not identity.keeps_model:
            forms = forms[-1:]
        return [replace(instruction, parameters=parameters) for parameters in forms]

    def _send_again(self) -> None:
        """Ask clients with a new connection again, even if the old one is not known to be lost."""
        connections = self.clients.by_cid()
        for client in [*self.at_work, *self.lost]:
            old = identity_of(client)
            newer = connections.get(old.cid, client) if old else client
            new = identity_of(newer)
            if newer is client or old is None or new is None:
                continue
            if new.instance != old.instance:
                if old.cid in self.restarted:  # only once: perhaps the fit kills it
                    continue
                self.restarted.add(old.cid)
            self.at_work.discard(client)
            self.lost.pop(client, None)
            self._send(newer, self.instructions[client])
