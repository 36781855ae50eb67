"""A client that does not learn but computes: the real connection around a model of a few numbers, and faults on order.

    python tests/faulty_client.py --cid 0 --server_address ADDRESS [the other flags of a client]

Each fit adds numbers to the model that depend on the client and the round only, so a run has one possible result. The
environment variable FAULTS holds a JSON object:

    size        numbers in the model (default 6)
    sleep       seconds that a fit takes
    evaluate_sleep
    fits        round -> what goes wrong in its fit: see `spoil` and `FaultyClient.fit`
    kind        what else goes wrong: see `FaultyClient.to_client` and `FaultyClient.evaluate`
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.client.connection import stay_connected
from federation.client.flags import parse_client
from federation.data.partitions import NUM_CLIENTS
from federation.flags import ArgumentParser, whole_number
from federation.wire.addresses import server_address

import numpy as np
from flwr.client import NumPyClient
from flwr.common import Code, FitRes, GetParametersRes, Parameters, Status, ndarrays_to_parameters

FAULTS = json.loads(os.environ.get("FAULTS", "{}"))


def numbers(cid: int, server_round: int, size: int) -> np.ndarray:
    return np.random.RandomState(1000 * server_round + cid).standard_normal(size).astype(np.float32)


def spoil(kind: str, arrays: list[np.ndarray]) -> list[np.ndarray]:
    first, *others = arrays
    return {
        "other shape": [first.reshape(-1, 1), *others],
        "fewer arrays": others,
        "more arrays": [*arrays, first],
        "one number": [np.ones(1, np.float32), *others],
        "nan": [first * np.nan, *others],
        "inf": [first / 0, *others],
        "float64": [first.astype(np.float64), *others],
        "big-endian": [array.astype(">f8") for array in arrays],
        "1e300": [first * np.float64(1e300), *others],
        "complex": [first.astype(np.complex64), *others],
        "text": [np.array(["a"] * first.size), *others],
    }.get(kind, arrays)


def fault_in(config: dict) -> str | None:
    return FAULTS.get("fits", {}).get(str(config["server_round"]))


class FaultyClient(NumPyClient):
    def __init__(self, cid: int) -> None:
        self.cid = cid

    def get_parameters(self, config):
        return [np.zeros(FAULTS.get("size", 6), np.float32), np.zeros((2, 3), np.float32)]

    def fit(self, parameters, config):
        kind = fault_in(config)
        print(f"fit {config['server_round']} begins", flush=True)
        time.sleep(FAULTS.get("sleep", 0) if kind != "late" else 25)
        if kind == "raise":
            raise RuntimeError("the disk is on fire")
        arrays = [
            array + numbers(self.cid, config["server_round"], array.size).reshape(array.shape) for array in parameters
        ]
        examples = {"0 examples": 0, "-1 examples": -1, "2**62 examples": 2**62}.get(kind, self.cid + 1)
        metrics = {"no metrics": {}, "odd metrics": {"accuracy": "high", "seconds": "=1+1"}}.get(
            kind, {"a": np.float32(1)}
        )
        return spoil(kind, arrays), examples, metrics

    def evaluate(self, parameters, config):
        time.sleep(FAULTS.get("evaluate_sleep", 0))
        if FAULTS.get("kind") == "odd evaluation":
            return float("nan"), 0, {"accuracy": "high"}
        return float(self.cid), self.cid + 1, {"accuracy": 0.5}

    def to_client(self):
        client = super().to_client()
        honest_fit = client.fit
        garbage = FitRes(Status(Code.OK, ""), Parameters([b"\x93NUMPY garbage"] * 2, "numpy.ndarray"), 1, {})
        client.fit = lambda ins: garbage if fault_in(ins.config) == "garbage" else honest_fit(ins)
        if FAULTS.get("kind") == "dies when asked for the initial model":
            client.get_parameters = lambda ins: os._exit(9)
        if FAULTS.get("kind") == "nan as initial model":
            nan = ndarrays_to_parameters([array * np.nan for array in self.get_parameters({})])
            client.get_parameters = lambda ins: GetParametersRes(Status(Code.OK, ""), nan)
        return client


if __name__ == "__main__":
    parser = ArgumentParser(__doc__)
    parser.add_argument("--cid", type=whole_number(0), required=True)
    parser.add_argument("--server_address", type=server_address, required=True)
    parser.add_argument("--mnist", action="store_true")
    args, settings = parse_client(parser, NUM_CLIENTS)
    stay_connected(FaultyClient(args.cid), settings)
    print("end of the script", flush=True)
