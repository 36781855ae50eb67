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
        server = start_inside("server", "server.py", "--server_address", ADDRESS, "--results_dir", results, *arguments)
        server.wait_for("clients connect")
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
    assert sniffers["server"].output.split("\n")[1:] == [f"to {DEVICE}", ""]


class Neighbours:
    """A laptop and a device, with as many cables between them as there are."""

    def __init__(self) -> None:
        self.names = {role: f"fl-{role}-{os.getpid()}" for role in ("laptop", "device")}
        for name in self.names.values():
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, timeout=10)

    def add(self, role: str, interface: str, address: str) -> None:
        family = ("-6",) if ":" in address else ()
        at_once = ("nodad",) if ":" in address else ()
        self.ip("-n", self.names[role], *family, "address", "add", address, "dev", interface, *at_once)

    def cable(self, interface: str, laptop: str, device: str, up: bool = True) -> None:
        """Lay a cable between interfaces of the same name and give them their addresses."""
        ends = (("netns", self.names[role]) for role in ("laptop", "device"))
        self.ip("link", "add", interface, *next(ends), "type", "veth", "peer", "name", interface, *next(ends))
        for role, address in (("laptop", laptop), ("device", device)):
            self.add(role, interface, address)
            if up or role == "device":
                self.ip("-n", self.names[role], "link", "set", interface, "up")

    def route(self, role: str, gateway: str) -> None:
        family = ("-6",) if ":" in gateway else ()
        self.ip("-n", self.names[role], *family, "route", "add", "default", "via", gateway)

    def inside(self, role: str, *command: object) -> tuple:
        return ("netns", "exec", self.names[role], sys.executable, *command)

    def close(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10)


@pytest.fixture
def neighbours():
    neighbours = Neighbours()
    yield neighbours
    neighbours.close()


def one_lan(net: Neighbours) -> list[str]:
    net.cable("eth0", "10.77.1.2/24", "10.77.1.3/24")
    return ["10.77.1.2:8080"]


def two_lans(net: Neighbours) -> list[str]:
    net.cable("eth0", "10.77.1.2/24", "10.77.1.3/24")
    net.cable("wlan0", "10.77.2.2/24", "10.77.2.3/24")
    net.add("laptop", "wlan0", "fd77::2/64")
    net.add("device", "wlan0", "fd77::3/64")
    net.route("laptop", "10.77.2.3")
    return ["10.77.2.2:8080", "10.77.1.2:8080", "[fd77::2]:8080"]


def ipv6_only(net: Neighbours) -> list[str]:
    net.cable("eth0", "fd77::2/64", "fd77::3/64")
    net.cable("eth1", "fd77:1::2/64", "fd77:1::3/64")
    net.route("laptop", "fd77:1::3")
    return ["[fd77:1::2]:8080", "[fd77::2]:8080"]


def containers(net: Neighbours) -> list[str]:
    net.ip("-n", net.names["laptop"], "link", "add", "docker0", "type", "bridge")
    net.add("laptop", "docker0", "172.17.0.1/16")
    net.ip("-n", net.names["laptop"], "link", "set", "docker0", "up")
    net.ip("-n", net.names["laptop"], "link", "add", "veth1", "type", "veth", "peer", "name", "in_container")
    for words in (["in_container", "up"], ["veth1", "master", "docker0", "up"]):
        net.ip("-n", net.names["laptop"], "link", "set", *words)
    net.cable("eth0", "10.77.1.2/24", "10.77.1.3/24")
    net.route("device", "10.77.1.2")
    return ["10.77.1.2:8080", "172.17.0.1:8080"]


def one_is_down(net: Neighbours) -> list[str]:
    net.cable("eth0", "10.77.1.2/24", "10.77.1.3/24", up=False)
    net.cable("eth1", "10.77.2.2/24", "10.77.2.3/24")
    return ["10.77.2.2:8080"]


def direct_cable(net: Neighbours) -> list[str]:
    net.cable("eth0", "169.254.77.2/16", "169.254.77.3/16")
    net.cable("wlan0", "10.77.1.2/24", "10.77.1.3/24")
    return ["10.77.1.2:8080", "169.254.77.2:8080"]


def no_network(net: Neighbours) -> list[str]:
    return ["127.0.0.1:8080 (on this machine)"]


LAYOUTS = [one_lan, two_lans, ipv6_only, containers, one_is_down, direct_cable, no_network]
CONNECT = """
import socket, sys
from federation.wire.addresses import split_address
for address in sys.argv[1:]:
    socket.create_connection(split_address(address), timeout=10).close()
"""


@pytest.mark.parametrize("everywhere", ["0.0.0.0:8080", "[::]:8080"])
@pytest.mark.parametrize("lay", LAYOUTS, ids=lambda lay: lay.__name__)
def test_the_addresses_that_the_server_prints(neighbours, start, results, lay, everywhere):
    expected = lay(neighbours)
    arguments = ("server.py", "--server_address", everywhere, "--results_dir", results)
    server = start(*neighbours.inside("laptop", *arguments), python="ip")
    server.wait_for(f"clients connect with --server_address={' or '.join(expected)}\n")
    server.wait_for("waits for 2 clients")
    role = "laptop" if lay is no_network else "device"
    addresses = [address.split()[0] for address in expected]
    visitor = start(*neighbours.inside(role, "-c", CONNECT, *addresses), python="ip")
    assert visitor.exit_code() == 0, visitor.output
