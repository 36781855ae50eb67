"""How the server copes with many clients, beside Flower's own server: seconds a round, memory, bytes on the wire.

    python benchmarks/server.py
    python benchmarks/server.py --clients 50 --megabytes 6 --repeat 3

For each number of clients and each size of the model, Flower's start_server with its FedAvg and our server.py, with a
token and all its checks and checkpoints, run in turn on the same kind of clients. These do not train: they send back
what they get. They have processes of their own, on the same machine. A round is a fit and an evaluation of all
clients. Times are medians over the rounds of all repetitions but for the first round of each, memory is the peak of the
server's process. "at once" is how many clients work at the same time, if each takes a while for a fit.

The last table is from a relay that counts the bytes between our server and one client.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from federation.admission import IDENTITY, proof

import flwr as fl
import grpc
import numpy as np
from common import ROOT, free_address, print_row, read_csv, versions
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetParametersRes,
    GetPropertiesRes,
    Status,
    ndarrays_to_parameters,
    serde,
)
from flwr.proto.transport_pb2 import ClientMessage
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

MEGABYTES = (0.176, 6.0)  # MNIST's CNN, CIFAR-10's MobileNet
CLIENTS = (10, 50, 200, 500)
PROCESSES = 2  # that the clients are spread over; one, where they count how many are at work at once
PAUSE = 0.2  # seconds
MOST_MEGABYTES = 1500  # of all clients' models together: Flower's server takes eight times that
ROUNDS = 4
TOKEN = b"0123456789abcdef"
OK = Status(Code.OK, "")


def plain_server(address: str, count: int) -> None:
    """Run Flower's own server; print the seconds of each round."""

    class Timed(fl.server.strategy.FedAvg):
        def configure_fit(self, *args, **kwargs):
            self.started = time.monotonic()
            return super().configure_fit(*args, **kwargs)

        def aggregate_evaluate(self, *args, **kwargs):
            result = super().aggregate_evaluate(*args, **kwargs)
            print(time.monotonic() - self.started, flush=True)
            return result

    strategy = Timed(min_fit_clients=count, min_evaluate_clients=count, min_available_clients=count)
    config = fl.server.ServerConfig(num_rounds=ROUNDS)
    fl.server.start_server(server_address=address, strategy=strategy, config=config)


class Clients:
    """Clients in one process, on Flower's wire format, without Flower's client around them."""

    def __init__(self, megabytes: float, seconds: float) -> None:
        size = int(megabytes * 1e6 / 4 / 10)
        arrays = [np.random.default_rng(i).normal(size=size).astype(np.float32) for i in range(10)]
        self.model = ndarrays_to_parameters(arrays)
        self.seconds = seconds
        self.at_work = self.most_at_work = 0
        self.lock = threading.Lock()

    def run(self, address: str, cid: int) -> None:
        """Take part as client `cid` until the server says that the run is over."""
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.insecure_channel(address, options) as channel:
            replies: queue.SimpleQueue = queue.SimpleQueue()
            for message in FlowerServiceStub(channel).Join(iter(replies.get, None), wait_for_ready=True):
                reply = self.answer(message, cid)
                replies.put(reply)
                if reply is None:
                    return

    def answer(self, message, cid: int) -> ClientMessage | None:
        """Return the answer to one message."""
        kind = message.WhichOneof("msg")
        if kind == "get_properties_ins":
            nonce = message.get_properties_ins.config["nonce"].string
            identity = dict.fromkeys(IDENTITY, "dummy")
            identity.update(cid=cid, num_clients=1000, process=f"process {cid}")
            result = GetPropertiesRes(OK, {**identity, "proof": proof(TOKEN, nonce, identity)})
            return ClientMessage(get_properties_res=serde.get_properties_res_to_proto(result))
        if kind == "get_parameters_ins":
            return ClientMessage(get_parameters_res=serde.get_parameters_res_to_proto(GetParametersRes(OK, self.model)))
        if kind == "fit_ins":
            with self.lock:
                self.at_work += 1
                self.most_at_work = max(self.most_at_work, self.at_work)
            time.sleep(self.seconds)
            with self.lock:
                self.at_work -= 1
            result = serde.fit_res_to_proto(FitRes(OK, fl.common.Parameters([], ""), 100 + cid, {"train_loss": 0.5}))
            result.parameters.CopyFrom(message.fit_ins.parameters)
            return ClientMessage(fit_res=result)
        if kind == "evaluate_ins":
            return ClientMessage(evaluate_res=serde.evaluate_res_to_proto(EvaluateRes(OK, 0.5, 10, {"accuracy": 0.5})))
        return None


def start_clients(address: str, count: int, megabytes: float, seconds: float) -> list[subprocess.Popen]:
    """Start `count` clients in a few processes; each prints at its end how many of its clients were at work at once."""
    words = [sys.executable, __file__, "--run_clients", address, str(megabytes), str(seconds)]
    processes = 1 if seconds else PROCESSES
    parts = [range(part, count, processes) for part in range(processes)]
    return [
        subprocess.Popen([*words, *map(str, part)], stdout=subprocess.PIPE, text=True) for part in parts if len(part)
    ]


def run_clients(address: str, megabytes: str, seconds: str, *cids: str) -> None:
    """Be one of these processes."""
    clients = Clients(float(megabytes), float(seconds))
    threads = [threading.Thread(target=clients.run, args=(address, int(cid))) for cid in cids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(clients.most_at_work)


class Run(NamedTuple):
    """What was measured in a federation."""

    seconds: list[float]  # of each round but the first
    peak_mb: float  # of the server
    at_once: int  # clients at work
    sent: dict[str, int]  # bytes by direction, if they were counted


def run(server: str, count: int, megabytes: float, seconds: float = 0.0, count_bytes: bool = False) -> Run:
    """Run a federation of `count` clients with the server "plain" or "ours"; a fit takes the clients `seconds`."""
    address = free_address()
    with tempfile.TemporaryDirectory() as folder:
        if server == "plain":
            command = [sys.executable, __file__, "--run_plain", address, str(count)]
        else:
            Path(folder, "token").write_bytes(TOKEN)
            command = [
                sys.executable, "server.py", "--server_address", address, "--min_num_clients", str(count),
                "--rounds", str(ROUNDS), "--results_dir", f"{folder}/results", "--token_file", f"{folder}/token",
            ]  # fmt: skip
        log = Path(folder, "log")
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.DEVNULL)
        relay = Relay(address) if count_bytes else None
        clients = start_clients(relay.address if relay else address, count, megabytes, seconds)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, log.read_text()
        at_work = sum(int(client.communicate(timeout=60)[0]) for client in clients)
        if server == "plain":
            rounds = [float(line) for line in log.read_text().split()]
        else:
            rows = read_csv(Path(folder, "results/rounds.csv"))
            assert all(int(row["clients"]) == count for row in rows)
            rounds = [float(row["seconds"]) for row in rows]
    assert len(rounds) == ROUNDS
    return Run(rounds[1:], usage.ru_maxrss / 1024, at_work, relay.counts if relay else {})


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


def main() -> None:
    """Compare the servers, or be one of the processes that this starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--megabytes", type=float, nargs="+", default=MEGABYTES)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--run_plain", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run_clients", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_plain:
        plain_server(args.run_plain[0], int(args.run_plain[1]))
    elif args.run_clients:
        run_clients(*args.run_clients)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Measure and print the tables."""
    print(versions())
    print_row("clients", "model", "ms a client, plain", "ours", "ratio", "peak MB, plain", "ours", "ratio")
    print_row(*["---"] * 8)
    for megabytes in args.megabytes:
        for count in (count for count in args.clients if count * megabytes <= MOST_MEGABYTES):
            pairs = [(run("plain", count, megabytes), run("ours", count, megabytes)) for _ in range(args.repeat)]
            plain, ours = zip(*pairs)
            ms = [1000 * statistics.median(s for run in runs for s in run.seconds) / count for runs in (plain, ours)]
            peak = [statistics.median(run.peak_mb for run in runs) for runs in (plain, ours)]
            print_row(
                *(str(count), f"{megabytes:g} MB", f"{ms[0]:.2f}", f"{ms[1]:.2f}", f"{ms[1] / ms[0]:.2f}"),
                *(f"{peak[0]:.0f}", f"{peak[1]:.0f}", f"{peak[1] / peak[0]:.2f}"),
            )

    print()
    print_row(f"clients that take {PAUSE} s for a fit", "at once, plain", "ours", "seconds a round, plain", "ours")
    print_row(*["---"] * 5)
    count = max(args.clients)
    plain, ours = (run(name, count, min(args.megabytes), seconds=PAUSE) for name in ("plain", "ours"))
    seconds = (f"{statistics.median(run.seconds):.1f}" for run in (plain, ours))
    print_row(str(count), str(plain.at_once), str(ours.at_once), *seconds)

    print()
    print_row("model", "bytes to the client a round / model", "to the server / model")
    print_row(*["---"] * 3)
    for megabytes in args.megabytes:
        sent = run("ours", 1, megabytes, count_bytes=True).sent
        size = sum(len(tensor) for tensor in Clients(megabytes, 0).model.tensors)
        # The client is the one whose model is the first global one, so it also sends that once.
        print_row(
            f"{megabytes:g} MB",
            f"{sent['to the client'] / ROUNDS / size:.4f}",
            f"{(sent['to the server'] - size) / ROUNDS / size:.4f}",
        )


if __name__ == "__main__":
    main()
