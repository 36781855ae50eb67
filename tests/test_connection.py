"""The client's connection, where it is not a fault of the network: giving up, limits, certificates."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from federation import tls

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from flwr.common import GetParametersIns, serde
from flwr.proto import transport_pb2_grpc
from flwr.proto.transport_pb2 import ServerMessage
from processes import ROOT


def test_a_client_gives_up_after_the_time_it_is_told(start, address):
    started = time.monotonic()
    arguments = ("--cid", 0, "--server_address", address)
    patient, client = (start("tests/faulty_client.py", *arguments, *more) for more in ((), ("--retry_for", 4)))
    assert client.exit_code() == 1
    assert time.monotonic() - started >= 4
    assert f"no connection to {address} for 4 s: giving up" in client.output and "Traceback" not in client.output
    assert patient.popen.poll() is None


def test_a_server_can_be_named(start_server, start, address):
    server = start_server("--rounds", 1, "--min_num_clients", 1)
    client = start("tests/faulty_client.py", "--cid", 0, "--server_address", address.replace("127.0.0.1", "localhost"))
    assert server.exit_code() == 0 and client.exit_code() == 0


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
    assert "the model is larger than a message can be, 512 MB" in client.output and "Traceback" not in client.output
    server.stop(0).wait()


def make_certificates(folder, *words):
    shutil.copy(ROOT / "make_certificates.sh", folder)
    return subprocess.run([folder / "make_certificates.sh", *words], capture_output=True, text=True, timeout=60)


def test_new_names_keep_the_root_certificate(tmp_path):
    assert make_certificates(tmp_path).returncode == 0
    folder = tmp_path / "certificates"
    root = (folder / "ca.crt").read_bytes()
    made = make_certificates(tmp_path, "192.168.7.7", "laptop.lan")
    assert made.returncode == 0 and made.stderr == ""
    assert "IP:192.168.7.7" in made.stdout and "DNS:laptop.lan" in made.stdout
    assert tls.read_server_certificates(folder)[0] == root
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "-verify_ip", "192.168.7.7", "server.pem"]
    assert subprocess.run(command, cwd=folder, capture_output=True, timeout=20).returncode == 0


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


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["--x"], 2), (["two words"], 2), ([""], 2)])
def test_words_that_make_certificates_does_not_know(tmp_path, words, code):
    made = make_certificates(tmp_path, *words)
    assert made.returncode == code
    assert "./make_certificates.sh 192.168.1.10" in made.stdout + made.stderr
    assert not (tmp_path / "certificates").exists()
