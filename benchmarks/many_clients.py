"""How the server copes with many clients, beside Flower's own server: seconds a round, memory, bytes on the wire.

    python benchmarks/many_clients.py
    python benchmarks/many_clients.py --clients 50 --megabytes 6 --repeat 3
    python benchmarks/many_clients.py --clients 500 --megabytes 0.176 --before ../another_version

For each number of clients and each size of the model, Flower's start_server with its FedAvg and our server.py, with a
token and all its checks and checkpoints, run in turn on the same kind of clients; with --before, also the server.py in
another folder. The clients do not train: they send back what they get. They have processes of their own, on the same
machine. A round is a fit and an evaluation of all clients. Times are medians over the rounds of all repetitions but for
the first round of each, memory is the peak of the server's process. "at once" is how many clients work at the same
time, if each takes a while for a fit.

The last table is from a relay that counts the bytes between our server and one client, over all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.results.tables import read_table
from federation.wire import handshake
from federation.wire.messages import failure
from federation.wire.models import LACKS_MODEL, Inbound, Lacks

import numpy as np
from common import TIMEOUT, print_head, print_row, versions
from flwr.common import EvaluateRes, FitRes, GetParametersRes, ndarrays_to_parameters, serde
from flwr.proto.transport_pb2 import ClientMessage, ServerMessage
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg
from processes import Process, Processes, free_address
from raw_client import OK, RawClient, nonce_of, properties

MEGABYTES = (0.176, 6.0)  # MNIST's CNN, CIFAR-10's MobileNet
CLIENTS = (10, 50, 200, 500)
PROCESSES = 2  # that the clients are spread over; one, where they count how many are at work at once
PAUSE = 0.2  # seconds
MOST_MEGABYTES = 1500  # of all clients' models together: Flower's server takes eight times that
ROUNDS = 4
TOKEN = b"0123456789abcdef"
THIS = "benchmarks/many_clients.py"
OURS = "server.py"
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # or all clients of a process would share a connection
]


class TimedFedAvg(FedAvg):
    """Flower's strategy, with a note of each round."""

    def __init__(self, count: int) -> None:
        super().__init__(min_fit_clients=count, min_evaluate_clients=count, min_available_clients=count)
        self.rounds: list[tuple[int, float]] = []  # clients, seconds

    def configure_fit(self, *args, **kwargs):
        """Start the clock."""
        self.started = time.monotonic()
        return super().configure_fit(*args, **kwargs)

    def aggregate_evaluate(self, server_round, results, failures):
        """Stop the clock."""
        aggregated = super().aggregate_evaluate(server_round, results, failures)
        self.rounds.append((len(results), time.monotonic() - self.started))
        return aggregated


def run_flowers_server(address: str, count: str, table: str) -> None:
    """Be Flower's own server; write a table with those of our columns that are compared."""
    strategy = TimedFedAvg(int(count))
    start_server(server_address=address, strategy=strategy, config=ServerConfig(num_rounds=ROUNDS))
    with Path(table).open("w", newline="") as file:
        rows = [(i + 1, *figures) for i, figures in enumerate(strategy.rounds)]
        csv.writer(file).writerows([("round", "clients", "seconds"), *rows])


class Clients:
    """Clients in one process, on Flower's wire format, without Flower's client around them."""

    def __init__(self, megabytes: float, seconds: float) -> None:
        size = int(megabytes * 1e6 / 4 / 10)
        arrays = [np.random.default_rng(i).normal(scale=0.05, size=(size // 8, 8)) for i in range(10)]
        self.model = ndarrays_to_parameters([array.astype(np.float32) for array in arrays])
        self.seconds = seconds
        self.inbound: dict[int, Inbound] = defaultdict(Inbound)  # by cid
        self.at_work = self.most_at_work = 0
        self.lock = threading.Lock()

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
            self.work()
            result = FitRes(OK, self.inbound[cid].answer(model), 100 + cid, {"train_loss": 0.5})
            return ClientMessage(fit_res=serde.fit_res_to_proto(result))
        if kind == "evaluate_ins":
            self.inbound[cid].receive(serde.parameters_from_proto(message.evaluate_ins.parameters))
            return ClientMessage(evaluate_res=serde.evaluate_res_to_proto(EvaluateRes(OK, 0.5, 10, {"accuracy": 0.5})))
        return None

    def work(self) -> None:
        """Let the time of a fit pass, and note how many clients do that at once."""
        with self.lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        time.sleep(self.seconds)
        with self.lock:
            self.at_work -= 1


def run_clients(address: str, megabytes: str, seconds: str, *cids: str) -> None:
    """Be a process of clients; print how many of them were at work at once."""
    clients = Clients(float(megabytes), float(seconds))
    with ThreadPoolExecutor(len(cids)) as pool:
        list(pool.map(clients.run, [address] * len(cids), map(int, cids)))  # the list, so that errors are raised
    print(clients.most_at_work)


class Run(NamedTuple):
    """What was measured in a federation."""

    seconds: list[float]  # of each round but the first
    peak_mb: float  # of the server
    at_once: int  # clients at work
    sent: dict[str, int]  # bytes by direction, if they were counted


def run(server: str | Path, count: int, megabytes: float, seconds: float = 0.0, relayed: bool = False) -> Run:
    """Run a federation of `count` clients with "Flower's" server or a server.py; a fit takes the clients `seconds`."""
    address = free_address()
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        table = Path(folder, "results", "rounds.csv")
        process = start(server, processes, address, count, table)
        relay = Relay(address) if relayed else None
        parts = 1 if seconds else min(PROCESSES, count)
        client_address = relay.address if relay else address
        clients = [
            processes.start(THIS, "--run_clients", client_address, megabytes, seconds, *range(part, count, parts))
            for part in range(parts)
        ]
        _, process.popen.returncode, usage = os.wait4(process.popen.pid, 0)  # Popen.wait tells nothing about memory
        assert process.popen.returncode == 0, process.output
        for client in clients:
            assert client.exit_code() == 0, client.output
        at_once = sum(int(client.own_lines[-1]) for client in clients)
        rows = read_table(table)
    assert [int(row["clients"]) for row in rows] == [count] * ROUNDS
    round_seconds = [float(row["seconds"]) for row in rows[1:]]
    return Run(round_seconds, usage.ru_maxrss / 1024, at_once, relay.counts if relay else {})


def start(server: str | Path, processes: Processes, address: str, count: int, table: Path) -> Process:
    """Start "Flower's" server or a server.py, that will write the table of rounds."""
    table.parent.mkdir()
    if server == "Flower's":
        return processes.start(THIS, "--run_flowers_server", address, count, table)
    token = table.parent / "token"
    token.write_bytes(TOKEN)
    flags = "--server_address", address, "--min_num_clients", count, "--rounds", ROUNDS
    return processes.start(server, *flags, "--results_dir", table.parent, "--token_file", token)


class Relay:
    """Passes one connection on to a server and counts the bytes in both directions."""

    def __init__(self, server_address: str) -> None:
        self.counts = {"to the server": 0, "to the client": 0}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.server_address = server_address
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client, _ = self.listener.accept()
        host, port = self.server_address.split(":")
        while True:
            try:
                server = socket.create_connection((host, int(port)))
                break
            except ConnectionRefusedError:  # it is not up yet
                time.sleep(0.2)
        threading.Thread(target=self._pass_on, args=(client, server, "to the server"), daemon=True).start()
        self._pass_on(server, client, "to the client")

    def _pass_on(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):  # the end of the connection, in whatever form
            while data := source.recv(1 << 16):
                self.counts[direction] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def compare_servers(args: argparse.Namespace) -> None:
    """Print the table of seconds and memory."""
    servers = {"Flower's": "Flower's", "ours": OURS, **({"before": args.before / "server.py"} if args.before else {})}
    others = [name for name in servers if name != "ours"]
    ratios = [f"ours / {name}" for name in others]
    print_head(
        "clients",
        "model",
        *(f"ms a client, {name}" for name in servers),
        *ratios,
        *(f"peak MB, {name}" for name in servers),
        *ratios,
    )
    for megabytes in args.megabytes:
        for count in (count for count in args.clients if count * megabytes <= MOST_MEGABYTES):
            runs = [
                {name: run(server, count, megabytes) for name, server in servers.items()} for _ in range(args.repeat)
            ]
            ms = {name: 1000 * median(s for turn in runs for s in turn[name].seconds) / count for name in servers}
            peak = {name: median(turn[name].peak_mb for turn in runs) for name in servers}
            print_row(
                str(count),
                f"{megabytes:g} MB",
                *(f"{value:.2f}" for value in ms.values()),
                *(f"{ms['ours'] / ms[name]:.2f}" for name in others),
                *(f"{value:.0f}" for value in peak.values()),
                *(f"{peak['ours'] / peak[name]:.2f}" for name in others),
            )


def compare_clients_at_once(args: argparse.Namespace) -> None:
    """Print the table of clients that take their time."""
    print_head(f"clients that take {PAUSE} s for a fit", "at once, Flower's", "ours", "s a round, Flower's", "ours")
    count = max(args.clients)
    runs = [run(server, count, min(args.megabytes), seconds=PAUSE) for server in ("Flower's", OURS)]
    print_row(str(count), *(str(run.at_once) for run in runs), *(f"{median(run.seconds):.1f}" for run in runs))


def count_bytes(args: argparse.Namespace) -> None:
    """Print the table of bytes on the wire."""
    print_head("model", "bytes to the client a round / model", "to the server / model")
    for megabytes in args.megabytes:
        sent = run(OURS, 1, megabytes, relayed=True).sent
        size = sum(len(tensor) for tensor in Clients(megabytes, 0).model.tensors)
        to_client = sent["to the client"] / ROUNDS / size
        # The client is the one whose model is the first global one, so it also sends that once.
        to_server = (sent["to the server"] - size) / ROUNDS / size
        print_row(f"{megabytes:g} MB", f"{to_client:.4f}", f"{to_server:.4f}")


def main() -> None:
    """Compare the servers, or be one of the processes that this starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--megabytes", type=float, nargs="+", default=MEGABYTES)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--before", type=Path, help="a folder with another version of this project")
    parser.add_argument("--run_flowers_server", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--run_clients", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_flowers_server:
        run_flowers_server(*args.run_flowers_server)
    elif args.run_clients:
        run_clients(*args.run_clients)
    else:
        print(versions())
        for table in (compare_servers, compare_clients_at_once, count_bytes):
            table(args)
            print()


if __name__ == "__main__":
    main()
