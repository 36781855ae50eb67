"""Ask many clients something at the same time, with a deadline; ask those again that lose their connection."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, List, Tuple

from federation.clients import Clients, number_of

from flwr.server.client_proxy import ClientProxy

PATIENCE = 10  # seconds in which a client whose connection broke is back, if its network is
PAUSE = 0.2  # seconds between two looks for clients that are back

# For each client what it has answered; the exception that came instead; or None, if it did not answer in time.
Answers = List[Tuple[ClientProxy, Any]]


def ask(
    clients: Clients,
    task: str,
    instructions: list[tuple[ClientProxy, Any]],
    server_round: int,
    timeout: float,
    patience: float = PATIENCE,
) -> Answers:
    """Call `task`, a method of ClientProxy such as "fit", of each client with its instruction; return the answers.

    Waits `timeout` seconds at the most, in which sending the model is included: Flower's own timeouts begin later. A
    client that loses its connection and comes back is asked again, as long as others are at work and `patience`
    seconds more. The answers are sorted by the clients' numbers.
    """
    return _Questions(clients, task, server_round, timeout).ask(instructions, patience)


class _Questions:
    def __init__(self, clients: Clients, task: str, server_round: int, timeout: float) -> None:
        self.clients = clients
        self.task = task
        self.server_round = server_round
        self.timeout = timeout
        self.at_work: dict[ClientProxy, Any] = {}  # client -> instruction
        self.lost: dict[ClientProxy, tuple[Any, Exception]] = {}  # client -> instruction, what ended its connection
        self.lost_at = 0.0  # when the last one was lost
        self.arrivals: queue.SimpleQueue = queue.SimpleQueue()  # of (client, answer)

    def ask(self, instructions: list[tuple[ClientProxy, Any]], patience: float) -> Answers:
        answered: dict[ClientProxy, Any] = {}
        for client, instruction in instructions:
            self._send(client, instruction)
        give_up_at = time.monotonic() + self.timeout
        while self.at_work or self.lost:
            now = time.monotonic()
            if now > give_up_at or (not self.at_work and now > self.lost_at + patience):
                break
            try:
                client, answer = self.arrivals.get(timeout=min(PAUSE, give_up_at - now))
            except queue.Empty:
                self._send_again()
                continue
            if client in self.at_work:  # else it has been asked again over a newer connection
                instruction = self.at_work.pop(client)
                if isinstance(answer, Exception) and client.properties:  # a plain Flower client never comes back
                    self.lost[client] = instruction, answer
                    self.lost_at = time.monotonic()
                else:
                    answered[client] = answer
        answered.update((client, error) for client, (_, error) in self.lost.items())
        answered.update((client, None) for client in self.at_work)
        return sorted(answered.items(), key=lambda item: number_of(item[0]))

    def _send(self, client: ClientProxy, instruction: Any) -> None:
        self.at_work[client] = instruction
        self.clients.start_work(client)
        threading.Thread(target=self._wait_for_answer, args=(client, instruction), daemon=True).start()

    def _wait_for_answer(self, client: ClientProxy, instruction: Any) -> None:
        try:
            # Always with a timeout: without, Flower applies that of the previous call.
            answer = getattr(client, self.task)(instruction, self.timeout, group_id=self.server_round)
        except Exception as error:
            self.arrivals.put((client, error))
            time.sleep(1)  # meanwhile, a client whose connection has ended is unregistered
            self.clients.end_work(client)
        else:
            self.clients.end_work(client)
            self.arrivals.put((client, answer))

    def _send_again(self) -> None:
        """Ask the clients again that have a new connection, whether or not the old one is known to be lost."""
        connections = self.clients.by_process()
        for client in [*self.at_work, *self.lost]:
            newer = connections.get(client.properties.get("process"))
            if newer not in (None, client):
                instruction = self.at_work.pop(client) if client in self.at_work else self.lost.pop(client)[0]
                self._send(newer, instruction)
