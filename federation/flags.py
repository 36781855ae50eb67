"""A parser of command lines and checks that turn a mistake into one clear sentence and exit code 2."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable, NoReturn

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
    number = _number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 1, not {text!r}")
    return number


def seconds(text: str) -> float:
    """Convert to a number above 0."""
    number = _number(text)
    if not 0 < number <= LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0  # out of range wherever this is used


def read_file(name: str) -> bytes:
    """Read a file that the command line names."""
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None


def token(name: str) -> bytes:
    """Read the token in a file."""
    content = read_file(name).strip()
    if len(content) < MIN_TOKEN_LENGTH or len(content.split()) > 1:
        raise argparse.ArgumentTypeError(f"{name} holds no token: one word of {MIN_TOKEN_LENGTH} characters or more")
    return content


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


def check_cid(parser: argparse.ArgumentParser, cid: int, num_clients: int) -> None:
    """End the process with exit code 2 if there is no partition `cid`."""
    if cid >= num_clients:
        parser.error(
            f"argument --cid: must be from 0 to {num_clients - 1} (there are {num_clients} partitions), not {cid}"
        )


def dataset_name(mnist: bool) -> str:
    """Return the name of the data set that the flag --mnist, given or not, stands for."""
    return "mnist" if mnist else "cifar10"


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
        type=token,
        dest="token",
        metavar="FILE",
        help="a secret that server and clients share; clients without it cannot take part (default: anybody can)",
    )
