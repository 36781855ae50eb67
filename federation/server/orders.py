"""What clients are told beside what the strategy says: their seeds, and how long they may train."""

from __future__ import annotations

from statistics import median_low
from typing import List, Tuple

from federation.seeds import derive
from federation.server.client_manager import key_of
from federation.server.validation import as_number

from flwr.common import FitIns, FitRes, Scalar
from flwr.server.client_proxy import ClientProxy

FIRST_SECONDS = 5.0  # what a fit may take before anything is known about the clients
MARGIN = 1.5  # over what the typical client needs

Fits = List[Tuple[ClientProxy, FitIns]]


class Orders:
    """Completes the instructions of a run with that seed and those `fit_seconds`: a number, "auto", or None."""

    def __init__(self, seed: int, fit_seconds: float | str | None) -> None:
        self.seed = seed
        self.is_auto = fit_seconds == "auto"
        self.fit_seconds = FIRST_SECONDS if self.is_auto else fit_seconds

    def complete(self, server_round: int, fits: Fits) -> Fits:
        """Return the instructions with what they lack; the strategy's word counts."""
        completed = []
        for client, fit in fits:
            config: dict[str, Scalar] = {"seed": derive(self.seed, server_round, key_of(client))}
            if self.fit_seconds is not None:
                config["fit_seconds"] = self.fit_seconds
            completed.append((client, FitIns(fit.parameters, {**config, **fit.config})))
        return completed

    def learn(self, fits: Fits, results: list[tuple[ClientProxy, FitRes]]) -> None:
        """Take the next round's seconds from those of this one, if they are to suit the clients."""
        configs = {key_of(client): fit.config for client, fit in fits}
        whole = []  # the seconds that each client would need for all of its epochs
        for client, result in results:
            figures = configs[key_of(client)].get("epochs"), result.metrics.get("epochs"), result.metrics.get("seconds")
            asked, done, seconds = map(as_number, figures)
            if asked and done and seconds:
                whole.append(seconds * asked / done)
        if whole and self.is_auto:
            self.fit_seconds = MARGIN * median_low(whole)
