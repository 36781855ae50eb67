"""Connect a client to the server, now or as soon as it is up, and stay until the server ends the run."""

from __future__ import annotations

import argparse
import queue
import random
import socket
import ssl
import sys
import threading
import time

from federation import MAX_MESSAGE_BYTES
from federation.admission import Refused, identity_of_client
from federation.arguments import is_loopback, split_address
from federation.keepalive import watch_connections
from federation.participant import Participant, exit_at_signals
from federation.tls import client_context

import grpc
from flwr.client import NumPyClient, start_client

LONGEST_PAUSE = 20  # seconds between two attempts to reach the server
PROBE_TIMEOUT = 5  # seconds

# How a conversation of HTTP/2 begins: the client's greeting with empty settings, then a frame of settings in return.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
HTTP2_SETTINGS = 4  # the fourth byte of such a frame
CERTIFICATE_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def stay_connected(client: NumPyClient, args: argparse.Namespace) -> None:
    """Take part in the run of the server at `args.server_address` as client `args.cid`.

    Waits for a server that is not up yet, comes back when the connection is lost, and returns when the server says
    that the run is over. Ends the process with exit code 1 if the server refuses this client, or if it could not be
    reached for `args.retry_for` seconds; with 130 at Ctrl-C and 143 at SIGTERM.
    """
    exit_at_signals()
    _hide_grpc_race()
    model = client.get_parameters({})
    participant = Participant(client, identity_of_client(args, model), args.token)
    watch_connections(split_address(args.server_address)[1])
    if args.root_certificate is None and not is_loopback(args.server_address):
        print("not encrypted: others on the network can read the models (--root_certificate changes that)", flush=True)
    try:
        _connect_until_ended(participant, args)
    except Refused as refusal:
        sys.exit(f"{refusal}")
    print("the server has ended the run", flush=True)


def _connect_until_ended(participant: Participant, args: argparse.Namespace) -> None:
    """Return once the server has ended the run; raises Refused if there is no use in trying again."""
    said = None  # no line is printed again while the client just waits
    give_up_at = time.monotonic() + args.retry_for
    pause = 1.0
    refused = False
    while True:
        try:
            _probe(args.server_address, args.root_certificate)
            if not refused:
                print(f"connecting to {args.server_address}", flush=True)
                said = None
            participant.was_asked = refused = False
            start_client(
                server_address=args.server_address,
                client=participant,
                grpc_max_message_length=MAX_MESSAGE_BYTES,
                root_certificates=args.root_certificate,
            )
            return
        except (grpc.RpcError, StopIteration) as error:
            problem = _lost(error, args.server_address)
        except OSError as error:
            problem = f"no server at {args.server_address} yet ({error.strerror or error}): waiting for it"
        except Refused as refusal:
            if not refusal.again:
                raise
            problem, refused = f"{refusal}: trying again", True
        _end_request_threads()
        if problem != said:
            print(problem, flush=True)
            said = problem
        if participant.was_asked and not refused:
            give_up_at, pause = time.monotonic() + args.retry_for, 1.0
        elif time.monotonic() >= give_up_at:
            raise Refused(f"no connection to {args.server_address} for {args.retry_for:g} s: giving up")
        time.sleep(min(random.uniform(pause / 2, pause), max(0, give_up_at - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE)


def _lost(error: grpc.RpcError | StopIteration, server_address: str) -> str:
    """Return what to tell about the end of a connection; raises Refused if the next one would end like this too."""
    if isinstance(error, StopIteration):
        return f"lost the server at {server_address}: trying again"
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        raise Refused(f"the model is larger than a message can be, {MAX_MESSAGE_BYTES // 1024**2} MB")
    return f"lost the server at {server_address} ({error.code().name}): trying again"


def _end_request_threads() -> None:
    """End the threads that broken connections have left behind.

    Flower's client has gRPC take the messages to send out of a queue. When the connection breaks, that thread goes on
    to wait for the next one, for ever: a thread for each lost connection, if nobody sends it the end mark, None.
    """
    for frame in sys._current_frames().values():
        while frame is not None:
            caller = frame.f_back
            if frame.f_code is queue.Queue.get.__code__ and caller and caller.f_globals["__name__"] == "grpc._channel":
                frame.f_locals["self"].put(None)
            frame = caller


def _hide_grpc_race() -> None:
    """Show no traceback of a gRPC thread that, now and then, looks at a channel which Flower has just closed."""
    show = threading.excepthook

    def excepthook(error: threading.ExceptHookArgs) -> None:
        if "Channel closed" not in str(error.exc_value):
            show(error)

    threading.excepthook = excepthook


def _probe(server_address: str, root_certificate: bytes | None) -> None:
    """Return if a Flower server could be there; raises OSError if nobody is, Refused if TLS does not fit.

    gRPC itself reports all of this as UNAVAILABLE.
    """
    host, port = split_address(server_address)
    with socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as connection:
        if root_certificate is None:
            connection.sendall(HTTP2_GREETING)
            answer = connection.recv(9)
            if answer[3:4] != bytes((HTTP2_SETTINGS,)):
                raise Refused(f"the server at {server_address} wants TLS: give --root_certificate its ca.crt")
            return
        try:
            client_context(root_certificate).wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == CERTIFICATE_NOT_YET_VALID:  # a Raspberry Pi does not know the time when it starts
                today = time.strftime("%Y-%m-%d")
                raise OSError(f"its certificate is not valid yet; the clock here says {today}") from error
            reason = f"its certificate does not fit --root_certificate: {error.verify_message}"
            raise Refused(f"the server at {server_address} is another one than expected: {reason}") from error
        except ssl.SSLEOFError as error:  # it went down just now
            raise OSError("it closed the connection") from error
        except ssl.SSLError as error:
            raise Refused(f"the server at {server_address} does not speak TLS: {error.reason}") from error
