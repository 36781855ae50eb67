"""The command lines of clients and server, and checks that turn a mistake into one clear sentence and exit code 2."""

from __future__ import annotations

import argparse
import math
import os
import socket
import time
from pathlib import Path
from typing import Callable, NoReturn

from federation import checkpoint, tls

LONGEST_WAIT = 30 * 24 * 3600  # seconds; more than any clock or lock here has to stand
MIN_TOKEN_LENGTH = 16  # characters: a short one could be guessed from what travels


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that answers a mistake with one line instead of the whole usage text."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return a converter for whole numbers from `minimum` on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {minimum}, not {text!r}")
        return number

    return convert


def fraction(text: str) -> float:
    """Convert to a number above 0, at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 1, not {text!r}")
    return number


def seconds(text: str) -> float:
    """Convert to a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return number


def token_file(text: str) -> bytes:
    """Read the token in a file."""
    token = _read_file(text).strip()
    if len(token) < MIN_TOKEN_LENGTH or len(token.split()) > 1:
        raise argparse.ArgumentTypeError(f"{text} holds no token: one word of {MIN_TOKEN_LENGTH} characters or more")
    return token


def root_certificate(text: str) -> bytes:
    """Read the certificate in a file."""
    content = _read_file(text)
    try:
        tls.client_context(content)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is of no use: {error}") from None
    return content


def server_certificates(text: str) -> tuple[bytes, bytes, bytes]:
    """Read the certificates in a folder."""
    try:
        return tls.read_server_certificates(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} is of no use: {error}") from None


def _read_file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None


def split_address(address: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT` into host and port; argparse's error for a wrong value if it is neither."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address without brackets: which colon is the port's?
    if not host or "/" in host or " " in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must look like 192.168.1.10:8080 or [fe80::1]:8080, not {address!r}")
    return host, int(port)


def listen_address(text: str) -> str:
    """Check an address to listen on, such as `0.0.0.0:8080`: every IPv4 address of this machine, port 8080."""
    host, port = split_address(text)
    try:
        # gRPC itself would share the port with the program that has it, and some clients would end up there.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # connections of an earlier server that are still closing do not matter
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot listen on {text}: {error.strerror or error}") from None
    return text


def server_address(text: str) -> str:
    """Check an address to connect to."""
    host, _ = split_address(text)
    if host in ("0.0.0.0", "::"):
        raise argparse.ArgumentTypeError(f"{text} is an address to listen on; give one that the server printed")
    return text


def is_loopback(address: str) -> bool:
    """Tell whether what is sent to this address stays on this machine."""
    host, _ = split_address(address)
    return host in ("localhost", "::1") or host.startswith("127.")


def parse_client(description: str | None, num_clients: int) -> argparse.Namespace:
    """Parse and check a client's command line; `num_clients` is the default number of partitions.

    The result has `dataset` ("mnist" or "cifar10") besides the flags. Ends the process with exit code 2
    and one sentence if a value is wrong.
    """
    parser = ArgumentParser(description)
    parser.add_argument(
        "--cid", type=whole_number(0), required=True, help="which partition is this client's: 0 to NUM_CLIENTS - 1"
    )
    parser.add_argument(
        "--server_address",
        type=server_address,
        default="127.0.0.1:8080",
        help="where the server listens, HOST:PORT (default: %(default)s)",
    )
    parser.add_argument("--mnist", action="store_true", help="a small CNN on MNIST (default: MobileNet on CIFAR-10)")
    parser.add_argument(
        "--num_clients",
        type=whole_number(1),
        default=num_clients,
        help="number of partitions that the data set is cut into, the same on all clients (default: %(default)s)",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="NUMBER",
        help="how many threads to train with (default: as many as help on this device; the first start tries that)",
    )
    parser.add_argument(
        "--root_certificate",
        type=root_certificate,
        metavar="FILE",
        help="encrypt, and trust only a server with a certificate signed by this one: the server's ca.crt "
        "(default: not encrypted)",
    )
    add_token_file(parser)
    parser.add_argument(
        "--retry_for",
        type=seconds,
        default=math.inf,
        metavar="SECONDS",
        help="end after that long without a connection (default: never)",
    )
    args = parser.parse_args()
    if args.cid >= args.num_clients:
        parser.error(
            f"argument --cid: must be from 0 to {args.num_clients - 1} "
            f"(there are {args.num_clients} partitions), not {args.cid}"
        )
    args.dataset = dataset_name(args)
    return args


def parse_server(description: str | None) -> argparse.Namespace:
    """Parse and check the server's command line.

    The result has besides the flags `dataset` ("mnist" or "cifar10"), `start` (what `checkpoint.load` returns) and
    `token`; `certificates` holds the contents of the files. Ends the process with exit code 2 and one sentence if a
    value is wrong.
    """
    parser = ArgumentParser(description)
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="rounds to run (default: %(default)s)")
    parser.add_argument(
        "--min_num_clients",
        type=whole_number(1),
        default=2,
        help="no round starts before that many clients are connected (default: %(default)s)",
    )
    parser.add_argument(
        "--sample_fraction",
        type=fraction,
        default=1.0,
        help="the part of the connected clients that takes part in a round, at least one (default: %(default)s)",
    )
    parser.add_argument(
        "--server_address",
        type=listen_address,
        default="0.0.0.0:8080",
        help="where to listen, HOST:PORT (default: %(default)s, all IPv4 addresses of this machine)",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
        default=3,
        help="passes of a client over its data in a round (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size", type=whole_number(1), default=16, help="images per training step (default: %(default)s)"
    )
    parser.add_argument(
        "--round_timeout",
        type=seconds,
        default=3600.0,
        metavar="SECONDS",
        help="how long a round waits for its clients to train, and then for them to evaluate (default: %(default)g)",
    )
    parser.add_argument(
        "--wait_timeout",
        type=seconds,
        default=3600.0,
        metavar="SECONDS",
        help="how long to wait for --min_num_clients before giving up (default: %(default)g)",
    )
    parser.add_argument(
        "--evaluate_with",
        choices=("pytorch", "tf"),
        help="test the global model here too after each round, as a model of client_pytorch.py or client_tf.py",
    )
    parser.add_argument("--mnist", action="store_true", help="--evaluate_with uses MNIST (default: CIFAR-10)")
    add_data_dir(parser)
    results = parser.add_mutually_exclusive_group()
    results.add_argument(
        "--results_dir",
        type=Path,
        default=Path("results", time.strftime("%Y-%m-%d-%H%M%S")),
        metavar="FOLDER",
        help="where the results go (default: results/<date-time>)",
    )
    results.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with the run whose results are in this folder (default: a new run)",
    )
    parser.add_argument(
        "--certificates",
        type=server_certificates,
        metavar="FOLDER",
        help="encrypt, with the files of make_certificates.sh in this folder (default: not encrypted)",
    )
    add_token_file(parser)
    args = parser.parse_args()
    if args.mnist and args.evaluate_with is None:
        parser.error("argument --mnist: only matters to --evaluate_with; the clients choose their data set themselves")
    args.dataset = dataset_name(args)
    args.start = [], checkpoint.NOTHING
    if args.resume is not None:
        args.results_dir = args.resume
        try:
            args.start = checkpoint.load(args.resume)
        except (OSError, ValueError) as error:
            parser.error(f"argument --resume: {error}")
    elif (args.results_dir / "rounds.csv").exists():
        parser.error(f"argument --results_dir: {args.results_dir} holds the results of another run (--resume goes on)")
    return args


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--data_dir`, which clients, server and `federation.partitions` share."""
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path("data"),
        metavar="FOLDER",
        help="where the data sets are, or where they are downloaded to (default: ./data)",
    )


def add_token_file(parser: argparse.ArgumentParser) -> None:
    """Add `--token_file`, which clients and server share."""
    parser.add_argument(
        "--token_file",
        type=token_file,
        dest="token",
        metavar="FILE",
        help="a secret that server and clients share; clients without it cannot take part (default: anybody can)",
    )


def dataset_name(args: argparse.Namespace) -> str:
    """Return the name of the data set that `--mnist`, given or not, stands for."""
    return "mnist" if args.mnist else "cifar10"
