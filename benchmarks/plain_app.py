"""The baseline of engines.py: the same clients and FedAvg as Flower's documentation has them, without flower_app.py.

It prints the seconds of each round. What engines.py says is in the environment: NUM_CLIENTS, DATA_DIR, ROUNDS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.data.partitions import Partitioning, load_partition

from common import TimedFedAvg
from flwr.client import Client
from flwr.clientapp import ClientApp
from flwr.common import Context, Scalar
from flwr.server import ServerAppComponents, ServerConfig
from flwr.serverapp import ServerApp


def make_client(context: Context) -> Client:
    """Return a client with its partition and a model."""
    from client_pytorch import FlowerClient

    node = context.node_config
    partitioning = Partitioning("mnist", Path(os.environ["DATA_DIR"]), int(node["num-partitions"]))
    return FlowerClient("mnist", *load_partition(partitioning, int(node["partition-id"]))).to_client()


def make_server(context: Context) -> ServerAppComponents:
    """Return FedAvg over all clients."""
    num_clients, rounds = int(os.environ["NUM_CLIENTS"]), int(os.environ["ROUNDS"])
    strategy = TimedFedAvg(num_clients, on_fit_config_fn=fit_config)
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))


def fit_config(server_round: int) -> dict[str, Scalar]:
    """Return what server.py says by default."""
    return {"server_round": server_round, "epochs": 3, "batch_size": 16}


client_app = ClientApp(client_fn=make_client)
server_app = ServerApp(server_fn=make_server)


def main() -> None:
    """Simulate."""
    from flwr.simulation import run_simulation

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app, client_app, int(os.environ["NUM_CLIENTS"]), backend_config=backend)


if __name__ == "__main__":
    main()
