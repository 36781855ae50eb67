"""Clients without an address find their server, and nobody else: machines on one network, in network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest
from processes import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and the command ip"),
]
SOON = 10  # seconds
# Announces itself at its own address, signed with a token of its own, and prints what anybody sends there.
FORGER = """
import socket
from federation.wire.addresses import Address
from federation.wire.discovery import Announcement, announced
forged = Announcement("first", (Address("10.78.0.9", 8080),), "", False)
with announced(lambda: forged), announced(lambda: forged.signed(b"some other token")):
    print("announced", flush=True)
    server = socket.create_server(("10.78.0.9", 8080))
    while True:
        print("somebody came", server.accept()[0].recv(1000), flush=True)
"""


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, timeout=10)


class Machine:
    """A network namespace whose one interface, `eth0`, is on the bridge."""

    def __init__(self, start, switch: str, number: int) -> None:
        self.start_process, self.number = start, number
        self.name, end = f"{switch}-{number}", f"{switch[-8:]}.{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "-n", switch, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "-n", switch, "link", "set", end, "master", "bridge", "up")
        for name in ("lo", "eth0"):
            self.ip("link", "set", name, "up")
        self.ip("address", "add", self.address, "dev", "eth0")

    @property
    def address(self) -> str:
        return f"10.78.0.{self.number}/24"

    def ip(self, *words: object) -> None:
        run("ip", "-n", self.name, *words)

    def start(self, *command: object):
        return self.start_process("netns", "exec", self.name, sys.executable, *command, python="ip")

    def client(self, cid: int, *flags: object):
        return self.start("tests/faulty_client.py", "--cid", cid, *flags)


@pytest.fixture
def machines(start):
    """Return a function that makes a machine with the address 10.78.0.`number`."""
    switch = f"sw{os.getpid()}"
    names = [switch]
    run("ip", "netns", "add", switch)
    run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
    run("ip", "-n", switch, "link", "set", "bridge", "up")

    def machine(number: int) -> Machine:
        names.append(f"{switch}-{number}")
        return Machine(start, switch, number)

    yield machine
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, timeout=10)


@pytest.mark.fault("new address")
@pytest.mark.parametrize("silently", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_whoever_comes_last_is_found_also_at_another_address(machines, tmp_path, silently):
    laptop, pi, jetson = map(machines, (1, 2, 3))
    shutil.copy(ROOT / "make_certificates.sh", tmp_path)
    run(tmp_path / "make_certificates.sh", "laptop.example")  # not for any of the addresses here
    trust = "--root_certificate", tmp_path / "certificates/ca.crt"
    flags = "--plain", "--rounds", 1000, "--every", 1, "--certificates", tmp_path / "certificates"
    first = pi.client(0, *trust)
    first.wait_for("looking on the network")
    server = laptop.start("server.py", "--results_dir", tmp_path / "first", *flags)
    server.wait_for("announced on the network")
    server.wait_for("client 0 on", timeout=SOON)
    assert "found server 'first'\nconnecting to 10.78.0.1:8080" in first.output
    second = jetson.client(1, *trust)
    second.wait_for("looking on the network")
    server.wait_for("client 1 on", timeout=SOON)
    server.wait_for("round 2: 2 results and 0 failures")

    if silently:  # nobody hears of the end of the connections
        laptop.ip("address", "flush", "dev", "eth0")
    server.popen.kill()
    server.exit_code()
    laptop.ip("address", "flush", "dev", "eth0")
    laptop.ip("address", "add", "10.78.0.77/24", "dev", "eth0")
    server = laptop.start("server.py", "--resume", tmp_path / "first", *flags)
    server.wait_for("2 results and 0 failures", timeout=60)
    assert "connecting to 10.78.0.77:8080" in first.output


def test_a_forged_announcement_gets_nothing_from_a_client_with_a_token(machines, tmp_path):
    laptop, pi, forger = map(machines, (1, 2, 9))
    (tmp_path / "token").write_text("0123456789abcdef")
    token = "--token_file", tmp_path / "token"
    forged = forger.start("-c", FORGER)
    forged.wait_for("announced")
    client = pi.client(0, *token)
    client.wait_for("found server 'first' at 10.78.0.9:8080, but it does not have this client's token", SOON)
    server = laptop.start("server.py", *token, "--results_dir", tmp_path / "first", "--min_num_clients", 1)
    assert server.exit_code() == client.exit_code() == 0, client.output
    assert "found server 'first'\nnot encrypted: others on the network can read the models" in client.output
    assert "somebody came" not in forged.output
    stranger = pi.client(1)  # who has no token is careless: this is what the forger waits for
    forged.wait_for("somebody came", SOON)
    stranger.popen.kill()


def test_two_servers_that_both_fit(machines, tmp_path):
    laptops, pi = [machines(1), machines(2)], machines(3)
    for laptop, name in zip(laptops, ("first", "second")):
        laptop.start("server.py", "--results_dir", tmp_path / name).wait_for("announced on the network")
    time.sleep(3)  # until both have been announced
    client = pi.client(0)
    assert client.exit_code() == 2
    sentence = client.output.splitlines()[-1]
    assert sentence.startswith("found 2 servers, ") and sentence.endswith(": choose one with --server_address")
    assert "'first' at 10.78.0.1:8080" in sentence and "'second' at 10.78.0.2:8080" in sentence
