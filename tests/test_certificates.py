"""make_certificates.sh, on machines with names, tools and accidents of all kinds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import PROMPTLY, ROOT
from test_setup import write_program

FILES = "ca.crt", "ca.key", "server.key", "server.pem"


class Machine:
    """A folder with the script, and programs that it finds before all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = folder / "certificates"
        shutil.copy(ROOT / "make_certificates.sh", folder)

    def has(self, program: str, commands: str) -> None:
        write_program(self.folder / "programs" / program, commands)

    def make(self, *words: str) -> subprocess.CompletedProcess:
        path = f"{self.folder}/programs{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [self.folder / "make_certificates.sh", *words], env={**os.environ, "PATH": path}, capture_output=True,
            text=True, timeout=PROMPTLY,
        )  # fmt: skip

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.certificates.glob("*") if path.name != "new"}

    def accepts(self, name: str) -> bool:
        """Whether a client that has ca.crt takes a server with server.pem for `name`, a name or an IPv4 address."""
        check = "-verify_ip" if name.replace(".", "").isdigit() and "." in name else "-verify_hostname"
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", check, name, "server.pem"]
        return subprocess.run(command, cwd=self.certificates, capture_output=True, timeout=PROMPTLY).returncode == 0


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("name", ["a" * 43, "laptop-" + "x" * 57, "laptop.example.com", "my_laptop", "12345"])
def test_names_that_a_machine_may_have(machine, name):
    machine.has("uname", f"echo {name}")
    made = machine.make()
    assert made.returncode == 0 and made.stderr == ""
    assert machine.accepts(name) and machine.accepts("localhost") and machine.accepts("127.0.0.1")


@pytest.mark.parametrize("name", ["büro", "", "(none)", "-x", "a,DNS:b"])
def test_names_that_a_certificate_cannot_hold_are_left_out(machine, name):
    machine.has("uname", f"echo '{name}'")
    made = machine.make("192.168.1.10")
    assert made.returncode == 0
    assert made.stderr == f"make_certificates.sh: left out: the name '{name}', which a certificate cannot hold\n"
    assert machine.accepts("192.168.1.10") and not machine.accepts("b")


NO_OPTION_I = "echo 'hostname: invalid option -- I' >&2; exit 1"
NOT_THERE = "exit 127"
IP = """echo '1: lo: <LOOPBACK,UP> mtu 65536
    inet 127.0.0.1/8 scope host lo
    inet6 ::1/128 scope host
2: eth0: <BROADCAST,UP> mtu 1500
    inet 192.168.7.7/24 brd 192.168.7.255 scope global eth0
    inet6 fe80::5054:ff:fe12:3456/64 scope link'"""
IFCONFIG_OF_MACOS = """echo 'lo0: flags=8049<UP,LOOPBACK> mtu 16384
	inet 127.0.0.1 netmask 0xff000000
	inet6 ::1 prefixlen 128
en0: flags=8863<UP,BROADCAST> mtu 1500
	inet6 fe80::1c%en0 prefixlen 64 secured scopeid 0x4
	inet 192.168.7.7 netmask 0xffffff00 broadcast 192.168.7.255'"""
IFCONFIG_OF_BUSYBOX = """echo 'eth0      Link encap:Ethernet  HWaddr 52:54:00:12:34:56
          inet addr:192.168.7.7  Bcast:192.168.7.255  Mask:255.255.255.0
          inet6 addr: fe80::5054:ff:fe12:3456/64 Scope:Link'"""


@pytest.mark.parametrize(
    "tools",
    [
        {"hostname": "echo '192.168.7.7 '"},
        {"hostname": NO_OPTION_I, "ip": IP},
        {"hostname": NOT_THERE, "ip": NOT_THERE, "ifconfig": IFCONFIG_OF_MACOS},
        {"hostname": NO_OPTION_I, "ip": NOT_THERE, "ifconfig": IFCONFIG_OF_BUSYBOX},
    ],
    ids=["Debian", "other Linux", "macOS", "BusyBox"],
)
def test_the_addresses_of_the_machine_are_in_the_certificate(machine, tools):
    for program, commands in tools.items():
        machine.has(program, commands)
    made = machine.make()
    assert made.returncode == 0 and made.stderr == ""
    assert machine.accepts("192.168.7.7") and "fe80" not in made.stdout and made.stdout.count("127.0.0.1") == 1


def test_a_machine_that_does_not_tell_its_addresses_says_so(machine):
    for program in ("hostname", "ip", "ifconfig"):
        machine.has(program, NOT_THERE)
    made = machine.make()
    assert made.returncode == 0 and "found no address of this machine; to have it in, give it" in made.stderr
    made = machine.make("192.168.7.7")
    assert made.returncode == 0 and made.stderr == "" and machine.accepts("192.168.7.7")


def count_openssl(machine: Machine, end: str) -> None:
    """Have call number n of openssl, n being in the file `at`, end as `end` says after it has half written a file."""
    openssl, counter = shutil.which("openssl"), machine.folder / "count"
    machine.has(
        "openssl",
        f"n=$(($(cat '{counter}' 2> /dev/null || echo 0) + 1)); echo $n > '{counter}'\n"
        f"[ $n != $(cat '{machine.folder}/at') ] || {{ for file in ca.key ca.crt server.key server.pem; do\n"
        f'[ -e $file ] || {{ echo half > $file; break; }}; done; {end}; }}\nexec {openssl} "$@"',
    )


@pytest.mark.parametrize(
    "end", ["exit 1", "kill -9 $PPID; exit 1", "exit 0"], ids=["fails", "killed", "on a full disk, unnoticed"]
)
@pytest.mark.parametrize("again", [False, True], ids=["first time", "again"])
def test_it_works_or_leaves_things_as_they_were(machine, end, again):
    """At whichever step it ends; afterwards it works as if nothing had been."""
    if again:
        assert machine.make().returncode == 0
    before = machine.contents()
    count_openssl(machine, end)
    for at in range(1, 3 if again else 6):
        (machine.folder / "at").write_text(str(at))
        (machine.folder / "count").unlink(missing_ok=True)
        assert machine.make("192.168.7.7").returncode != 0, at
        assert machine.contents() == before, at
    (machine.folder / "programs/openssl").unlink()
    made = machine.make("192.168.7.7")
    assert made.returncode == 0 and made.stderr == "" and machine.accepts("192.168.7.7")
    assert sorted(path.name for path in machine.certificates.iterdir()) == sorted(FILES)
    assert not again or machine.contents()["ca.crt"] == before["ca.crt"]


@pytest.mark.parametrize(
    "missing", [["ca.crt"], ["server.key"], ["server.pem"], ["ca.crt", "server.key", "server.pem"]]
)
def test_what_is_missing_is_made_and_old_root_certificates_stay_good(machine, missing):
    """Also where the script was killed between two of its last steps."""
    machine.make()
    root = machine.contents()["ca.crt"]
    for name in missing:
        (machine.certificates / name).unlink()
    assert machine.make().returncode == 0 and machine.accepts("localhost")
    (machine.certificates / "ca.crt").write_bytes(root)
    assert machine.accepts("localhost")


def test_a_root_certificate_without_its_key_is_not_replaced(machine):
    machine.make()
    (machine.certificates / "ca.key").unlink()
    before = machine.contents()
    made = machine.make()
    assert made.returncode == 1 and made.stderr.startswith("make_certificates.sh: certificates/ca.key is missing")
    assert made.stderr.count("\n") == 1 and machine.contents() == before
