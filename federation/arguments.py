"""The command line of the clients, and checks that turn a wrong value into one clear sentence and exit code 2."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import Callable, NoReturn


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
    args = parser.parse_args()
    if args.cid >= args.num_clients:
        parser.error(
            f"argument --cid: must be from 0 to {args.num_clients - 1} "
            f"(there are {args.num_clients} partitions), not {args.cid}"
        )
    args.dataset = dataset_name(args)
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


def dataset_name(args: argparse.Namespace) -> str:
    """Return the name of the data set that `--mnist`, given or not, stands for."""
    return "mnist" if args.mnist else "cifar10"
