"""What the unit tests share: clients that exist in this process only, a bound on every wait, a certificate."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

from federation.server.client_manager import DeviceClientManager
from federation.server.fit_config import FitBound
from federation.server.flags import RunSettings
from federation.wire.handshake import Identity, answer, connection_of

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
)
from flwr.server.client_proxy import ClientProxy

OK = Status(Code.OK, "")
MODEL = [np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([7, 8], np.float32)]
TOKEN = b"a secret of the family"
SOMEBODY = Identity(
    cid=0,
    device="pi0 (a board)",
    instance="first start of 0",
    script="client_pytorch.py",
    dataset="mnist",
    num_clients=50,
    model="2 arrays, 8 numbers, 00c0ffee",
    alpha="",
    classes="",
    versions="",
    keeps_model=False,
)


def identity(cid: int, **changes: Any) -> Identity:
    """Who client `cid` is; the clients fit together unless `changes` say otherwise."""
    return replace(SOMEBODY, **{"cid": cid, "device": f"pi{cid}", "instance": f"first start of {cid}", **changes})


def encoded(arrays: list[np.ndarray]) -> Parameters:
    return ndarrays_to_parameters(arrays)


# A question of each kind, and an answer to it.
TASKS = {
    "get_properties": (GetPropertiesIns({"nonce": "abc"}), GetPropertiesRes(OK, {"cid": 3, "device": "pi"})),
    "get_parameters": (GetParametersIns({}), GetParametersRes(OK, encoded(MODEL))),
    "fit": (
        FitIns(encoded(MODEL), {"epochs": 3, "rate": 0.5, "text": "x", "bytes": b"x", "bool": True}),
        FitRes(OK, encoded(MODEL), 20, {"train_loss": 0.25, "count": -3}),
    ),
    "evaluate": (EvaluateIns(encoded(MODEL), {"server_round": 2}), EvaluateRes(OK, 0.5, 5, {"accuracy": 0.75})),
}


def run_settings(results_dir: Path, **changes: Any) -> RunSettings:
    """Settings of a new run of one round; `changes` to them."""
    usual = {
        "num_rounds": 1, "min_num_clients": 2, "round_timeout": 10.0, "wait_timeout": 10.0, "results_dir": results_dir,
        "resumed": None, "seed": 7, "fit_bound": FitBound(), "half_precision": False, "every": 0, "flags": {},
    }  # fmt: skip
    return RunSettings(**{**usual, **changes})


def fit_result(arrays: list[np.ndarray], num_examples: int = 1, **metrics: Any) -> FitRes:
    return FitRes(OK, encoded(arrays), num_examples, metrics)


def evaluation(loss: float, num_examples: int = 1, **metrics: Any) -> EvaluateRes:
    return EvaluateRes(OK, loss, num_examples, metrics)


class FakeClient(ClientProxy):
    """A connection to a client; to a plain Flower client without an identity.

    `tasks` are functions from a task's instruction to its result, by the name of the task. An error in one stands for
    the end of the connection.
    """

    def __init__(
        self,
        connection: str,
        identity: Identity | None = None,
        token: bytes | None = None,
        **tasks: Callable[[Any], Any],
    ) -> None:
        super().__init__(connection)
        self.identity, self.token, self.tasks = identity, token, tasks
        self.calls: list[tuple[str, Any, float, int | None]] = []  # task, instruction, timeout, group_id
        self.refusal: dict[str, Any] | None = None  # what the server told it when it sent it away

    def _call(self, task: str, ins: Any, timeout: float, group_id: int | None) -> Any:
        self.calls.append((task, ins, timeout, group_id))
        return self.tasks[task](ins)

    def get_properties(self, ins, timeout, group_id):
        if "refused" in ins.config:
            self.refusal = ins.config
        if "get_properties" in self.tasks:
            return self._call("get_properties", ins, timeout, group_id)
        known = self.identity
        return GetPropertiesRes(OK, {} if known is None else answer(ins.config, known, self.token))

    def get_parameters(self, ins, timeout, group_id):
        return self._call("get_parameters", ins, timeout, group_id)

    def fit(self, ins, timeout, group_id):
        return self._call("fit", ins, timeout, group_id)

    def evaluate(self, ins, timeout, group_id):
        return self._call("evaluate", ins, timeout, group_id)

    def reconnect(self, ins, timeout, group_id):
        self.calls.append(("reconnect", ins, timeout, group_id))
        self.refusal = {}  # all that Flower can tell a plain client


def learner(cid: int, connection: str = "", **tasks: Callable[[Any], Any]) -> FakeClient:
    """A client that returns MODEL plus its cid from cid + 1 examples, with the loss cid."""
    return FakeClient(
        connection or f"connection of {cid}",
        identity(cid),
        **{
            "get_parameters": lambda ins: GetParametersRes(OK, encoded(MODEL)),
            "fit": lambda ins: fit_result([array + np.float32(cid) for array in MODEL], cid + 1),
            "evaluate": lambda ins: evaluation(float(cid), cid + 1),
            **tasks,
        },
    )


def as_if_from(path: str, kind: type, monkeypatch) -> None:
    """Make a class look as if it were defined in the file `path`, which need not exist."""
    module = ModuleType(Path(path).stem)
    module.__file__ = path
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind.__module__ = module.__name__


def wait_until(condition: Callable[[], object], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.0005)


def arrive(clients: DeviceClientManager, *newcomers: FakeClient) -> None:
    """Let clients connect one after the other; each is admitted or sent away, and that is told, when this returns."""
    for client in newcomers:
        clients.register(client)
        wait_until(lambda client=client: connection_of(client) in clients.all() or client.refusal is not None)
        for thread in threading.enumerate():
            if thread.name == f"greeting {connection_of(client)}":
                thread.join(10)


@functools.lru_cache(maxsize=None)
def self_signed(name: str = "somebody") -> tuple[bytes, bytes]:
    """Return a certificate for 127.0.0.1, valid for a day, that is its own root, and its key, both in PEM format."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
