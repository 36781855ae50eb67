"""Several clients in one process that do not learn: for tests of the server.

    python tests/dummy_client.py ADDRESS --count 50 --sleep 2

Each returns the parameters plus one. Client i claims i + 1 examples, and reports the loss i and the accuracy i / 10,
the latter not if i is odd and --forgetful is given.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import federation  # noqa: F401  no telemetry

import flwr as fl
import numpy as np


class DummyClient(fl.client.NumPyClient):
    def __init__(self, number: int, args: argparse.Namespace) -> None:
        self.number, self.args = number, args

    def get_parameters(self, config):
        return [np.zeros((3, 2), np.float32), np.zeros(2, np.float32)]

    def fit(self, parameters, config):
        print(f"fit {self.number} {sorted(config.items())}", flush=True)
        time.sleep(self.args.sleep)
        if self.args.fail_in_round == config["server_round"]:
            raise RuntimeError("told to fail")
        return [array + 1 for array in parameters], self.number + 1, {"cid": self.number}

    def evaluate(self, parameters, config):
        forgets = self.args.forgetful and self.number % 2 == 1
        return float(self.number), self.number + 1, {} if forgets else {"accuracy": self.number / 10}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--fail_in_round", type=int)
    parser.add_argument("--forgetful", action="store_true")
    args = parser.parse_args()

    def run(number: int) -> None:
        fl.client.start_client(server_address=args.address, client=DummyClient(number, args).to_client())

    threads = [threading.Thread(target=run, args=(args.first + i,)) for i in range(args.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
