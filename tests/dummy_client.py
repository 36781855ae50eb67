"""Several clients in one process that do not learn: for tests of the server.

    python tests/dummy_client.py ADDRESS --count 50 --sleep 2

Each returns the parameters plus one; with --whole_numbers, plus 0.25, and the first model is of integers. Client i
claims i + 1 examples, and reports the loss i and the accuracy i / 10.
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
        dtype = np.int32 if self.args.whole_numbers else np.float32
        return [np.zeros((3, 2), dtype), np.zeros(2, dtype)]

    def fit(self, parameters, config):
        print(f"fit {self.number} {sorted(config.items())}", flush=True)
        time.sleep(self.args.sleep)
        step = 0.25 if self.args.whole_numbers else 1
        return [array + step for array in parameters], self.number + 1, {"cid": self.number}

    def evaluate(self, parameters, config):
        return float(self.number), self.number + 1, {"accuracy": self.number / 10}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--whole_numbers", action="store_true")
    args = parser.parse_args()

    def run(number: int) -> None:
        fl.client.start_client(server_address=args.address, client=DummyClient(number, args).to_client())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(args.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
