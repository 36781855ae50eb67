"""Connect a client to the server, now or as soon as it is up, and stay until the server ends the run."""

from __future__ import annotations

import argparse
import random
import socket
import sys
import time

from federation import MAX_MESSAGE_BYTES
from federation.arguments import split_address
from federation.device import ReportingClient

import grpc
from flwr.client import Client, NumPyClient, start_client

LONGEST_PAUSE = 30  # seconds between two attempts to reach the server


def stay_connected(client: NumPyClient, args: argparse.Namespace) -> None:
    """Take part in the run of the server at `args.server_address` as client `args.cid`.

    Waits for a server that is not up yet, comes back when the connection is lost, and returns when the
    server says that the run is over. Ctrl-C ends the process with exit code 130.
    """
    flower_client = ReportingClient(client, args.cid).to_client()
    try:
        while not _run_ended(args.server_address, flower_client):
            time.sleep(random.uniform(1, 3))  # so that not all clients come back at once
    except KeyboardInterrupt:
        sys.exit(130)


def _run_ended(server_address: str, client: Client) -> bool:
    """Connect to the server; return True once it has ended the run, False if the connection is lost before."""
    _wait_for_server(server_address)
    try:
        start_client(server_address=server_address, client=client, grpc_max_message_length=MAX_MESSAGE_BYTES)
    except grpc.RpcError as error:
        print(f"lost the server at {server_address} ({error.code().name}): trying again", flush=True)
        return False
    print("the server has ended the run", flush=True)
    return True


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
