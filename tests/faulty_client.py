"""A client that does not learn but computes: the real connection around a model of a few numbers, and faults on order.

    python tests/faulty_client.py --cid 0 [--server_address ADDRESS] [the other flags of a client]

Each fit adds numbers to the model that depend on the client and the round only, so a run has one possible result. The
environment variable FAULTS holds a JSON object:

    size        numbers in the model (default 6)
    sleep       seconds that a fit takes
    evaluate_sleep
    fits        round -> what goes wrong in its fit: "raise", "nan" or "late"
    kind        what else goes wrong: see `FaultyClient.to_client`
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

FAULTS = json.loads(os.environ.get("FAULTS", "{}"))


def numbers(cid: int, server_round: int, size: int) -> np.ndarray:
    return np.random.RandomState(1000 * server_round + cid).standard_normal(size).astype(np.float32)


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
        time.sleep(FAULTS.get("sleep", 0) if kind != "late" else 12)
        if kind == "raise":
            raise RuntimeError("the disk is on fire")
        arrays = [
            array + numbers(self.cid, config["server_round"], array.size).reshape(array.shape) for array in parameters
        ]
        return [array * np.nan for array in arrays] if kind == "nan" else arrays, self.cid + 1, {"a": np.float32(1)}

    def evaluate(self, parameters, config):
        time.sleep(FAULTS.get("evaluate_sleep", 0))
        return float(self.cid), self.cid + 1, {"accuracy": 0.5}

    def to_client(self):
        client = super().to_client()
        if FAULTS.get("kind") == "dies when asked for the initial model":
            client.get_parameters = lambda ins: os._exit(9)
        return client


if __name__ == "__main__":
    parser = ArgumentParser(__doc__)
    parser.add_argument("--cid", type=whole_number(0), required=True)
    parser.add_argument("--server_address", type=server_address)
    parser.add_argument("--mnist", action="store_true")
    args, settings = parse_client(parser, NUM_CLIENTS)
    stay_connected(FaultyClient(args.cid), settings)
    print("end of the script", flush=True)
