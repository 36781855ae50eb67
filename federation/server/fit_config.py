"""What clients are told beside what the strategy says: their seeds, and how long they may train."""

from __future__ import annotations

from typing import List, Tuple

from federation.server.seeds import derive
from federation.wire.handshake import as_number, key_of

from flwr.common import FitIns, FitRes, Scalar
from flwr.server.client_proxy import ClientProxy

LEAST_SECONDS = 1.0  # that "auto" gives to a fit, and what it begins with
MOST_GROWTH = 4  # from round to round: a first fit can take long to prepare, and looks slower than it is
MARGIN = 1.1  # for boards of nearly equal speed, all of which are to finish

Fits = List[Tuple[ClientProxy, FitIns]]


class Orders:
    """Completes the instructions of a run with that seed and those `fit_seconds`: a number, "auto", or None."""

    def __init__(self, seed: int, fit_seconds: float | str | None) -> None:
        self.seed = seed
        self.is_auto = fit_seconds == "auto"
        self.fit_seconds = LEAST_SECONDS if isinstance(fit_seconds, str) else fit_seconds
        self.needed: list[float] = []  # seconds that each client of the last round would need for all of its epochs
        self.longest = 0.0  # seconds of the last round's longest fit

    def complete(self, server_round: int, fits: Fits) -> Fits:
        """Return the instructions with what they lack; where the strategy says something, that counts."""
        completed = []
        for client, fit in fits:
            config: dict[str, Scalar] = {"seed": derive(self.seed, server_round, key_of(client))}
            if self.fit_seconds is not None:
                config["fit_seconds"] = self.fit_seconds
            completed.append((client, FitIns(fit.parameters, {**config, **fit.config})))
        return completed

    def learn(self, fits: Fits, results: list[tuple[ClientProxy, FitRes]]) -> None:
        """Note how fast the clients are."""
        configs = {key_of(client): fit.config for client, fit in fits}
        self.needed, self.longest = [], 0.0
        for client, result in results:
            figures = configs[key_of(client)].get("epochs"), result.metrics.get("epochs"), result.metrics.get("seconds")
            asked, done, seconds = map(as_number, figures)
            if asked and done and seconds:
                self.needed.append(seconds * asked / done)
                self.longest = max(self.longest, seconds)

    def end_round(self, seconds: float) -> None:
        """If the bound is to suit the clients, choose that of the next round; this one took so many seconds in all.

        It is the one with which the clients together get the most of their epochs done per second: with a longer one,
        the fast ones wait; a shorter one is not worth the rest of a round, in which models travel and are tested.
        """
        if self.fit_seconds is None or not self.is_auto or not self.needed:
            return
        rest = max(0.0, seconds - self.longest)
        best = max(self.needed, key=lambda bound: sum(min(1, bound / whole) for whole in self.needed) / (bound + rest))
        self.fit_seconds = min(max(LEAST_SECONDS, MARGIN * best), MOST_GROWTH * self.fit_seconds)
