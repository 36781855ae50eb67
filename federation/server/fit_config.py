"""Settings that clients receive besides the strategy's: their seeds, and how long they may train.

All random numbers of a run come from one seed, so that the run can be repeated.
"""

from __future__ import annotations

import hashlib
from typing import List, NamedTuple, Tuple

from federation.wire.handshake import as_number, key_of

from flwr.common import FitIns, FitRes, Scalar
from flwr.server.client_proxy import ClientProxy

LEAST_SECONDS = 1.0  # that "auto" gives to a fit, and its first value
MOST_GROWTH = 4  # from round to round: a first fit can take long to prepare, and looks slower than it is
MARGIN = 1.1  # so that boards of nearly equal speed all finish

Fits = List[Tuple[ClientProxy, FitIns]]


def derive(seed: int, *purpose: object) -> int:
    """Return the seed of a run with `seed` for a purpose, such as a round and a client; it is always the same."""
    text = repr((seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class FitBound(NamedTuple):
    """How long a client may train in a round."""

    seconds: float | None = None  # None: until its epochs are done
    is_auto: bool = False  # adapted to the clients after each round


AUTO = FitBound(LEAST_SECONDS, is_auto=True)


class Orders:
    """Completes the instructions of a run: adds seeds, derived from `seed`, and a bound on fits."""

    def __init__(self, seed: int, bound: FitBound) -> None:
        self.seed = seed
        self.is_auto = bound.is_auto
        self.fit_seconds = bound.seconds
        self.needed: list[float] = []  # seconds that each client of the last round would need for all of its epochs
        self.longest = 0.0  # seconds of the last round's longest fit

    def complete(self, server_round: int, fits: Fits) -> Fits:
        """Return the instructions with the missing settings added; the strategy's own settings take precedence."""
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
        """If the bound is "auto", choose that of the next round; this one took `seconds` in all.

        The best bound lets the clients together do the most epochs per second. With a longer one, fast clients wait;
        with a shorter one, the rest of the round, in which models are sent and tested, takes too large a part.
        """
        if self.fit_seconds is None or not self.is_auto or not self.needed:
            return
        rest = max(0.0, seconds - self.longest)
        best = max(self.needed, key=lambda bound: sum(min(1, bound / whole) for whole in self.needed) / (bound + rest))
        self.fit_seconds = min(max(LEAST_SECONDS, MARGIN * best), MOST_GROWTH * self.fit_seconds)
