"""What clients are told about a fit: a seed of their own, and how long they may train."""

from __future__ import annotations

import dataclasses

from federation.server.fit_config import AUTO, LEAST_SECONDS, MARGIN, MOST_GROWTH, FitBound, Orders

import pytest
from fakes import MODEL, FakeClient, encoded, fit_result, identity
from flwr.common import FitIns


def clients(*cids: int) -> list[FakeClient]:
    """Clients that the client manager has admitted."""
    found = [FakeClient(f"connection of {cid}", identity(cid)) for cid in cids]
    for client in found:
        client.properties = dataclasses.asdict(client.identity)
    return found


def configs(given: Orders, *cids: int, server_round: int = 1, **said) -> list[dict]:
    shared = FitIns(encoded(MODEL), said)
    completed = given.complete(server_round, [(client, shared) for client in clients(*cids)])
    assert shared.config == said  # a strategy may give all clients the same object
    assert all(fit.parameters is shared.parameters for _, fit in completed)
    return [fit.config for _, fit in completed]


def learn(given: Orders, fits: list[tuple[object, object]], rest: float = 0.0, asked: object = 3) -> float:
    """Let `given` learn from fits (epochs, seconds), one a client; return the next bound."""
    crowd = clients(*range(len(fits)))
    results = [
        (client, fit_result(MODEL, 1, epochs=epochs, seconds=seconds)) for client, (epochs, seconds) in zip(crowd, fits)
    ]
    given.learn([(client, FitIns(encoded(MODEL), {"epochs": asked})) for client in crowd], results)
    longest = max((seconds for _, seconds in fits if isinstance(seconds, float)), default=0.0)
    given.end_round(longest + rest)
    return given.fit_seconds


def test_each_client_and_round_has_a_seed_of_its_own_and_always_the_same():
    first = configs(Orders(7, FitBound()), 0, 1)
    assert configs(Orders(7, FitBound()), 1, 0) == first[::-1]
    others = configs(Orders(8, FitBound()), 0, 1) + configs(Orders(7, FitBound()), 0, 1, server_round=2)
    seeds = [config["seed"] for config in first + others]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**32 for seed in seeds)
    assert all(config.keys() == {"seed"} for config in first)


def test_the_strategy_has_the_last_word():
    assert configs(Orders(7, FitBound(2.5)), 0, epochs=3, seed=11) == [{"epochs": 3, "seed": 11, "fit_seconds": 2.5}]
    assert configs(Orders(7, FitBound(2.5)), 0, seed=11, fit_seconds=9.0) == [{"seed": 11, "fit_seconds": 9.0}]


def test_a_bound_that_was_given_stays():
    for wanted in (None, 2.5):
        assert learn(Orders(7, FitBound(wanted)), [(3.0, 10.0), (3.0, 100.0)]) == wanted


def auto(seconds: float = 1000.0) -> Orders:
    """Orders that know the clients well enough to change the bound as they like."""
    known = Orders(7, AUTO)
    assert known.fit_seconds == LEAST_SECONDS
    known.fit_seconds = seconds
    return known


RULES = {
    "nobody waits": ([(3.0, 10.0), (3.0, 40.0), (3.0, 200.0)], 0.5, 10.0),
    "whoever had no time to finish": ([(3.0, 10.0), (0.75, 10.0), (0.15, 10.0)], 0.5, 10.0),
    "one slow board among fast ones": ([(3.0, 9.9), (3.0, 10.3), (3.0, 10.0), (3.0, 500.0)], 0.5, 9.9),
    "a slow network": ([(3.0, 10.0), (3.0, 40.0), (3.0, 200.0)], 100.0, 40.0),
    "clients that tell nothing": ([(3.0, 10.0), (None, 1.0), (0.0, 1.0), (3.0, "x"), (float("nan"), 1.0)], 0.0, 10.0),
}


@pytest.mark.parametrize("fits, rest, expected", RULES.values(), ids=RULES)
def test_the_bound_that_suits_the_clients(fits, rest, expected):
    assert learn(auto(), fits, rest) == pytest.approx(MARGIN * expected)


def test_a_bound_grows_step_by_step_and_never_shrinks_to_nothing():
    growing = auto(2.0)
    assert learn(growing, [(3.0, 100.0)]) == 2.0 * MOST_GROWTH
    assert learn(growing, [(3.0, 100.0)]) == 2.0 * MOST_GROWTH**2
    assert learn(auto(), [(3.0, 1e-9)]) == LEAST_SECONDS


@pytest.mark.parametrize("fits, asked", [([], 3), ([(None, None)], 3), ([(3.0, 10.0)], None), ([(3.0, 10.0)], "3")])
def test_a_round_that_teaches_nothing_changes_nothing(fits, asked):
    known = auto(5.0)
    assert learn(known, fits, asked=asked) == 5.0
