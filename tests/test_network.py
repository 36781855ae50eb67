"""A federation across networks that fail: server, router and device are network namespaces of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import PROMPTLY
from test_faults import assert_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and the command ip"),
]
SERVER, DEVICE = "10.77.1.2", "10.77.2.2"
ADDRESS = f"{SERVER}:8080"


class Network:
    """A server's machine and a device, with a router between them that can stop to forward, without telling anybody."""

    def __init__(self) -> None:
        self.names = {role: f"fl-{role}-{os.getpid()}" for role in ("server", "router", "device")}
        for name in self.names.values():
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        for number, role in ((1, "server"), (2, "device")):
            ends = f"fl{number}{os.getpid()}", f"fr{number}{os.getpid()}"
            self.ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for end, name, address in zip(ends, (self.names[role], self.names["router"]), (2, 1)):
                self.ip("link", "set", end, "netns", name)
                self.ip("-n", name, "address", "add", f"10.77.{number}.{address}/24", "dev", end)
                self.ip("-n", name, "link", "set", end, "up")
            self.ip("-n", self.names[role], "route", "add", "default", "via", f"10.77.{number}.1")
        self.connect(True)

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=10)

    def connect(self, on: bool) -> None:
        """Let the router forward, or drop every packet silently."""
        command = f"echo {int(on)} > /proc/sys/net/ipv4/ip_forward"
        self.ip("netns", "exec", self.names["router"], "sh", "-c", command)

    def inside(self, role: str, *command: object) -> tuple:
        """Return what to give `start` together with python="ip", to run Python with `command` in a namespace."""
        return ("netns", "exec", self.names[role], sys.executable, *command)

    def close(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10)


@pytest.fixture
def network():
    network = Network()
    yield network
    network.close()


@pytest.fixture
def start_inside(start, network):
    def start_inside(role: str, *command: object, faults: str = "{}"):
        return start(*network.inside(role, *command), python="ip", env={"FAULTS": faults})

    return start_inside


@pytest.fixture
def serve_inside(start_inside, results):
    def serve_inside(*arguments: object):
        everywhere = "--server_address", "0.0.0.0:8080"
        server = start_inside("server", "server.py", *everywhere, "--results_dir", results, *arguments)
        server.wait_for(f"clients connect with --server_address={ADDRESS}\n")
        return server

    return serve_inside


@pytest.mark.fault("short outage")
@pytest.mark.parametrize("moment", ["before it is sent", "in the middle"])
def test_60_s_without_network_while_a_result_is_under_way(network, start_inside, serve_inside, results, moment):
    size = 5_000_000  # 20 MB
    if moment == "in the middle":  # 5 s for a model
        link = f"fl2{os.getpid()}"
        limit = ("qdisc", "add", "dev", link, "root", "tbf", "rate", "32mbit", "burst", "64kb", "latency", "400ms")
        network.ip("netns", "exec", network.names["device"], "tc", *limit)
    server = serve_inside("--rounds", 2)
    faults = f'{{"size": {size}, "sleep": 2}}'
    start_inside("server", "tests/faulty_client.py", "--cid", 0, "--server_address", ADDRESS, faults=faults)
    device = start_inside("device", "tests/faulty_client.py", "--cid", 1, "--server_address", ADDRESS, faults=faults)
    if moment == "in the middle":
        device.wait_for("round 1: fit on")
        time.sleep(2)
    else:
        device.wait_for("fit 1 begins")
    network.connect(False)
    time.sleep(60)
    assert "round 1: 2 results" not in server.output
    network.connect(True)
    server.wait_for("round 1: 2 results and 0 failures")
    assert server.exit_code() == 0
    assert device.exit_code() == 0
    assert device.output.count("fit 1 begins") == 1  # it has not trained twice
    assert_model(results, 2, size=size)


@pytest.mark.fault("long outage")
def test_300_s_without_network_while_the_client_is_idle(network, start_inside, serve_inside):
    server = serve_inside("--rounds", 1)
    device = start_inside("device", "tests/faulty_client.py", "--cid", 1, "--server_address", ADDRESS)
    server.wait_for("has joined, 1 now")
    time.sleep(6)  # until the connection is watched
    network.connect(False)
    server.wait_for("has left, 0 now", timeout=90)
    device.wait_for("lost the server", timeout=60)
    time.sleep(210)
    network.connect(True)
    server.wait_for("has joined, 1 now", timeout=35, count=2)
    time.sleep(5)
    assert "2 now" not in server.output  # one connection for one device
    start_inside("server", "tests/faulty_client.py", "--cid", 0, "--server_address", ADDRESS)
    assert server.exit_code() == 0
    assert device.exit_code() == 0


# Prints where the packets go that leave a namespace, once each; not the neighbours' protocols of the kernel.
SNIFF = """
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))
seen = set()
print("sniffing", flush=True)
while True:
    packet, (_, protocol, kind, *_) = packets.recvfrom(65535)
    if kind != socket.PACKET_OUTGOING:
        continue
    if protocol == 0x0800:
        target = socket.inet_ntoa(packet[16:20])
    elif protocol == 0x86DD:
        target = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        continue
    if target not in seen and not target.startswith("ff02"):
        seen.add(target)
        print("to", target, flush=True)
"""


@pytest.mark.fault("no internet")
@pytest.mark.parametrize("framework", ["pytorch", "tf"])
def test_no_internet(network, start_inside, serve_inside, mnist, framework):
    subprocess.run(
        [sys.executable, "-m", "federation.data", "--mnist", "--cid", "0", "1", "--num_clients", "20",
         "--data_dir", mnist],
        check=True, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    sniffers = {role: start_inside(role, "-c", SNIFF) for role in ("server", "device")}
    for sniffer in sniffers.values():
        sniffer.wait_for("sniffing")
    server = serve_inside("--rounds", 1)
    arguments = ("--mnist", "--num_clients", 20, "--data_dir", mnist, "--server_address", ADDRESS)
    clients = [start_inside("device", f"client_{framework}.py", "--cid", cid, *arguments) for cid in (0, 1)]
    server.wait_for("round 1: 2 results and 0 failures")
    deadline = time.monotonic() + PROMPTLY
    for process in (server, *clients):
        assert process.exit_code(deadline - time.monotonic()) == 0
    assert sniffers["device"].output.split("\n")[1:] == [f"to {SERVER}", ""]
    # Announcements go to the local network, and to the server's own sockets for them.
    local = "to 224.0.0.", "to fe80:", "to 127.", f"to {SERVER}"
    sent = sniffers["server"].output.split("\n")[1:]
    assert [line for line in sent if not line.startswith(local)] == [f"to {DEVICE}", ""]
