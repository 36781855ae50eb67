"""How the server copes with many clients, beside Flower's own server: seconds a round and memory.

    python benchmarks/many_clients.py
    python benchmarks/many_clients.py --clients 50 --megabytes 6 --repeat 3

For each number of clients and each size of the model, Flower's start_server with its FedAvg and our server.py, with a
token and all its checks and checkpoints, run in turn on the same kind of clients. The clients do not train: they send
back what they get. They have two processes of their own, on the same machine. A round is a fit and an evaluation of all
clients. Times are medians over the rounds of all repetitions but for the first round of each, memory is the peak of the
server's process. The second table has clients that take a while for a fit.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.wire import handshake
from federation.wire.messages import failure
from federation.wire.models import LACKS_MODEL, Inbound, Lacks

import numpy as np
from common import TIMEOUT, TimedFedAvg, parser_of, print_head, print_row, read_table
from flwr.common import EvaluateRes, FitRes, GetParametersRes, ndarrays_to_parameters, serde
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage
from flwr.server import ServerConfig, start_server
from processes import Processes, free_address
from raw_client import OK, RawClient, nonce_of, properties

MEGABYTES = [0.176, 6.0]  # MNIST's CNN, CIFAR-10's MobileNet
CLIENTS = [10, 50, 200, 500]
PROCESSES = 2  # that the clients are spread over
PAUSE = 0.2  # seconds
MOST_MEGABYTES = 1500  # of all clients' models together: Flower's server takes eight times that
ROUNDS = 4
TOKEN = b"0123456789abcdef"
THIS = "benchmarks/many_clients.py"
OURS = "server.py"
SERVERS = "Flower's", OURS
OPTIONS = [(f"grpc.max_{what}_message_length", -1) for what in ("send", "receive")]
OPTIONS.append(("grpc.use_local_subchannel_pool", 1))  # or all clients of a process would share a connection


def run_flowers_server(address: str, count: str, table: str) -> None:
    """Be Flower's own server."""
    strategy = TimedFedAvg(int(count), Path(table))
    start_server(server_address=address, strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))


class Clients:
    """Clients in one process, on Flower's wire format, without Flower's client around them."""

    def __init__(self, megabytes: float, seconds: float) -> None:
        size = int(megabytes * 1e6 / 4 / 10)
        arrays = [np.random.default_rng(i).normal(scale=0.05, size=(size // 8, 8)) for i in range(10)]
        self.model = ndarrays_to_parameters([array.astype(np.float32) for array in arrays])
        self.seconds = seconds
        self.inbound: dict[int, Inbound] = defaultdict(Inbound)  # by cid

    def run(self, address: str, cid: int) -> None:
        """Take part as client `cid` until the server says that the run is over."""
        with contextlib.closing(RawClient(address, OPTIONS, TIMEOUT)) as connection:
            while (reply := self.answer(connection.receive(), cid)) is not None:
                connection.reply(reply)

    def answer(self, message: ServerMessage, cid: int) -> ClientMessage | None:
        """Return the answer to one message."""
        kind = message.WhichOneof("msg")
        if kind == "get_properties_ins":
            instance = f"instance {cid}"
            identity = handshake.Identity(
                cid, "dummy", instance, "dummy", "dummy", 1000, "dummy", "", "", versions="dummy", keeps_model=True
            )
            return properties(handshake.answer({"nonce": nonce_of(message)}, identity, TOKEN))
        if kind == "get_parameters_ins":
            self.inbound[cid].receive(self.model)
            return ClientMessage(get_parameters_res=serde.get_parameters_res_to_proto(GetParametersRes(OK, self.model)))
        if kind == "fit_ins":
            try:
                model = self.inbound[cid].receive(serde.parameters_from_proto(message.fit_ins.parameters))
            except Lacks:
                return ClientMessage(fit_res=serde.fit_res_to_proto(failure("fit", "", LACKS_MODEL)))
            time.sleep(self.seconds)
            result = FitRes(OK, self.inbound[cid].answer(model), 100 + cid, {"train_loss": 0.5})
            return ClientMessage(fit_res=serde.fit_res_to_proto(result))
        if kind == "evaluate_ins":
            self.inbound[cid].receive(serde.parameters_from_proto(message.evaluate_ins.parameters))
            return ClientMessage(evaluate_res=serde.evaluate_res_to_proto(EvaluateRes(OK, 0.5, 10, {"accuracy": 0.5})))
        return None


def run_clients(address: str, megabytes: str, seconds: str, *cids: str) -> None:
    """Be a process of clients."""
    clients = Clients(float(megabytes), float(seconds))
    with ThreadPoolExecutor(len(cids)) as pool:
        list(pool.map(clients.run, [address] * len(cids), map(int, cids)))  # the list, so that errors are raised


def run(server: str, count: int, megabytes: float, seconds: float = 0.0) -> tuple[list[float], float]:
    """The seconds of each round but the first, and the server's peak megabytes; a fit takes the clients `seconds`."""
    address = free_address()
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        results = Path(folder, "results")
        results.mkdir()
        if server == OURS:
            (results / "token").write_bytes(TOKEN)
            flags = "--server_address", address, "--min_num_clients", count, "--rounds", ROUNDS
            process = processes.start(OURS, *flags, "--results_dir", results, "--token_file", results / "token")
        else:
            process = processes.start(THIS, "--run_flowers_server", address, count, results / "rounds.csv")
        parts = min(PROCESSES, count)
        clients = [
            processes.start(THIS, "--run_clients", address, megabytes, seconds, *range(part, count, parts))
            for part in range(parts)
        ]
        _, process.popen.returncode, usage = os.wait4(process.popen.pid, 0)  # Popen.wait tells nothing about memory
        assert process.popen.returncode == 0, process.output
        for client in clients:
            assert client.exit_code() == 0, client.output
        rows = read_table(results / "rounds.csv")
    assert [int(row["clients"]) for row in rows] == [count] * ROUNDS
    return [float(row["seconds"]) for row in rows[1:]], usage.ru_maxrss / 1024


def compare_servers(args: argparse.Namespace) -> None:
    """Print the table of seconds and memory."""
    print_head(*("clients", "model", "ms a client, Flower's", "ours", "ratio", "peak MB, Flower's", "ours", "ratio"))
    for megabytes, count in itertools.product(args.megabytes, args.clients):
        if count * megabytes <= MOST_MEGABYTES:
            runs = [[run(server, count, megabytes) for server in SERVERS] for _ in range(args.repeat)]
            ms = [1000 * median(s for seconds, _ in of_server for s in seconds) / count for of_server in zip(*runs)]
            peak = [median(mb for _, mb in of_server) for of_server in zip(*runs)]
            cells = *(f"{each:.2f}" for each in ms), f"{ms[1] / ms[0]:.2f}", *(f"{each:.0f}" for each in peak)
            print_row(f"{count}", f"{megabytes:g} MB", *cells, f"{peak[1] / peak[0]:.2f}")


def compare_clients_at_once(args: argparse.Namespace) -> None:
    """Print the table of clients that take their time."""
    print_head("clients", "s a round, Flower's", "ours", about=f"\nWith clients that take {PAUSE} s for a fit:")
    count = max(args.clients)
    seconds = [median(run(server, count, min(args.megabytes), PAUSE)[0]) for server in SERVERS]
    print_row(f"{count}", *(f"{each:.1f}" for each in seconds))


def main() -> None:
    """Compare the servers, or be one of the processes that this starts."""
    parser = parser_of(__doc__, clients=CLIENTS, megabytes=MEGABYTES, repeat=2)
    parser.add_argument("--run_flowers_server", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--run_clients", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_flowers_server:
        run_flowers_server(*args.run_flowers_server)
    elif args.run_clients:
        run_clients(*args.run_clients)
    else:
        compare_servers(args)
        compare_clients_at_once(args)


if __name__ == "__main__":
    main()
