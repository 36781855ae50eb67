"""The client's connection, where it is not a fault of the network: giving up, names, limits, who else may answer."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socketserver
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from conftest import FLOWER_1_25, needs_flower_1_25
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from flwr.common import GetParametersIns, serde
from flwr.proto import transport_pb2_grpc
from flwr.proto.transport_pb2 import ServerMessage
from processes import PROMPTLY, free_address
from test_certificates import make_certificates


def test_a_client_gives_up_after_the_time_it_is_told(start, address):
    started = time.monotonic()
    arguments = ("--cid", 0, "--server_address", address)
    patient, client = (start("tests/faulty_client.py", *arguments, *more) for more in ((), ("--retry_for", 4)))
    assert client.exit_code() == 1
    assert time.monotonic() - started >= 4
    assert f"no connection to {address} for 4 s: giving up" in client.output and "Traceback" not in client.output
    assert patient.popen.poll() is None


NO_IPV6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")


@pytest.mark.parametrize("hosts", [("127.0.0.1", "localhost"), pytest.param(("[::1]", "[::1]"), marks=NO_IPV6)])
def test_a_server_with_a_name_or_an_ipv6_address(start, address, results, hosts):
    listens, connects = (address.replace("127.0.0.1", host) for host in hosts)
    server = start(
        "server.py", "--server_address", listens, "--results_dir", results, "--rounds", 1, "--min_num_clients", 1
    )
    client = start("tests/faulty_client.py", "--cid", 0, "--server_address", connects)
    assert server.exit_code() == 0 and client.exit_code() == 0
    assert f"clients connect with --server_address={listens}\n" in server.output


class Listener(socketserver.TCPServer):
    allow_reuse_address = True  # else, connections that are still closing would keep a server from this port


@contextlib.contextmanager
def listening(address, answer):
    """Give each connection to `address` to `answer`, one after the other."""
    host, port = address.split(":")
    with Listener((host, int(port)), lambda connection, *_: answer(connection)) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield
        server.shutdown()


def test_a_port_that_is_forwarded_to_a_server_that_is_not_up_yet(start_device, start_server, address):
    with listening(address, lambda connection: None):
        client = start_device(0)
        client.wait_for(f"no server at {address} yet (")
        time.sleep(3)
        assert client.popen.poll() is None, client.output
    server = start_server("--rounds", 1, "--min_num_clients", 1)
    assert server.exit_code() == 0 and client.exit_code() == 0
    assert "the server has ended the run" in client.output


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def http2(status: bytes):
    """Return an answer of a web server that speaks HTTP/2, to any request."""

    def answer(connection):
        connection.sendall(frame(4, 0, 0))  # settings
        heard = b""
        while b"FlowerService" not in heard:
            more = connection.recv(1000)
            if not more:  # it only looked
                return
            heard += more
        connection.sendall(frame(4, 1, 0) + frame(1, 5, 1, b"\x08\x03" + status))  # settings read; the header :status
        while connection.recv(1000):
            pass

    return answer


SOMEBODY_ELSE = {
    "a web server": lambda connection: connection.recv(100) and connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "HTTP/2: not found": http2(b"404"),
}
NO_FLOWER_SERVER = "there is no Flower server at {}: something else answers"


@pytest.mark.parametrize("who", SOMEBODY_ELSE)
def test_somebody_else_is_there(start, address, who):
    with listening(address, SOMEBODY_ELSE[who]):
        client = start("tests/faulty_client.py", "--cid", 0, "--server_address", address)
        assert client.exit_code(PROMPTLY) == 1, client.output
    assert NO_FLOWER_SERVER.format(address) in client.output.splitlines()[-1] and "Traceback" not in client.output


@pytest.mark.slow
@pytest.mark.parametrize("python", [Path(sys.executable), pytest.param(FLOWER_1_25, marks=needs_flower_1_25)])
def test_a_superlink_is_there(start, address, tmp_path, python):
    if python == FLOWER_1_25:
        apis = zip(("fleet", "serverappio", "control"), (address, free_address(), free_address()))
        where = [word for api, there in apis for word in (f"--{api}-api-address", there)]
    else:
        where = ["--host", "127.0.0.1", "--port", address.split(":")[1]]
    superlink = python.with_name("flower-superlink")
    environment = {"FLWR_HOME": str(tmp_path), "HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"}
    start(str(superlink), "--insecure", "--isolation", "process", *where, python=python, env=environment, cwd=tmp_path)
    client = start("tests/faulty_client.py", "--cid", 0, "--server_address", address)
    assert client.exit_code() == 1, client.output
    assert NO_FLOWER_SERVER.format(address) in client.output.splitlines()[-1] and "Traceback" not in client.output


class TooSmall(transport_pb2_grpc.FlowerServiceServicer):
    """Asks for a model."""

    def Join(self, request_iterator, context):
        question = serde.get_parameters_ins_to_proto(GetParametersIns({}))
        yield ServerMessage(get_parameters_ins=question)
        next(request_iterator)


def test_a_model_that_is_larger_than_a_message(start, address):
    server = grpc.server(ThreadPoolExecutor(max_workers=2), options=[("grpc.max_receive_message_length", 1000)])
    transport_pb2_grpc.add_FlowerServiceServicer_to_server(TooSmall(), server)
    server.add_insecure_port(address)
    server.start()
    client = start("tests/faulty_client.py", "--cid", 0, "--server_address", address, env={"FAULTS": '{"size": 1000}'})
    assert client.exit_code() == 1
    assert (
        "the model is larger than the limit of a message, 512 MB" in client.output and "Traceback" not in client.output
    )
    server.stop(0).wait()


def test_a_client_whose_clock_is_behind_waits(tmp_path, start_server, start_device):
    make_certificates(tmp_path)
    folder = tmp_path / "certificates"
    ca_key, key = (load_pem_private_key((folder / name).read_bytes(), None) for name in ("ca.key", "server.key"))
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(ca.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(tomorrow).not_valid_after(tomorrow + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(names, critical=False).sign(ca_key, SHA256())
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    start_server("--certificates", folder)
    client = start_device(0, "--root_certificate", folder / "ca.crt")
    client.wait_for("(its certificate is not valid yet; the clock here says")
    time.sleep(3)
    assert client.popen.poll() is None and client.output.count("not valid yet") == 1
