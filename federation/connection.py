"""Connect a client to the server, now or as soon as it is up, and stay until the server ends the run."""

from __future__ import annotations

import argparse
import random
import socket
import time

from federation.arguments import split_address
from federation.device import ReportingClient

import grpc
from flwr.client import NumPyClient, start_client

MAX_MESSAGE_BYTES = 512 * 1024**2  # the largest model, in both directions; Flower's default differs by version
LONGEST_PAUSE = 30  # seconds between two attempts to reach the server


def stay_connected(client: NumPyClient, args: argparse.Namespace) -> None:
    """Take part in the run of the server at `args.server_address` as client `args.cid`.

    Waits for a server that is not up yet, comes back when the connection is lost, and returns when the
    server says that the run is over.
    """
    flower_client = ReportingClient(client, args.cid).to_client()
    while True:
        _wait_for_server(args.server_address)
        try:
            start_client(
                server_address=args.server_address,
                client=flower_client,
                grpc_max_message_length=MAX_MESSAGE_BYTES,
            )
        except grpc.RpcError as error:
            print(f"lost the server at {args.server_address} ({error.code().name}): trying again", flush=True)
            time.sleep(random.uniform(1, 3))  # not all clients at once
        else:
            print("the server has ended the run", flush=True)
            return


def _wait_for_server(server_address: str) -> None:
    """Return once the server accepts connections.

    A plain socket asks, because each failed attempt of start_client leaves a thread behind.
    """
    pause = 1.0
    while True:
        try:
            socket.create_connection(split_address(server_address), timeout=10).close()
        except OSError as error:
            if pause == 1.0:
                print(f"no server at {server_address} yet ({error.strerror or error}): waiting for it", flush=True)
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            print(f"connecting to {server_address}", flush=True)
            return
