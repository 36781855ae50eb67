"""Where the random numbers of a run come from, so that the same run can be had again: all from one seed."""

from __future__ import annotations

import hashlib
import secrets

MAX_SEED = 2**32 - 1  # NumPy and Keras take no larger one


def draw_seed() -> int:
    """Return a new seed for a run."""
    return secrets.randbelow(MAX_SEED + 1)


def derive(seed: int, *purpose: object) -> int:
    """Return the seed that a run with `seed` has for a purpose, such as a round and a client; always the same one."""
    text = repr((seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
