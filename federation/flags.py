"""A command-line parser, and checks that turn a mistake into one clear sentence and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import unicodedata
from pathlib import Path
from typing import Callable, NoReturn, TypeVar

Content = TypeVar("Content")
LONGEST_WAIT = 30 * 24 * 3600  # seconds; clocks and locks do not take arbitrarily large numbers
# Of a Dirichlet distribution. Below, versions of NumPy draw different numbers; above, nothing changes any more.
SMALLEST_ALPHA, LARGEST_ALPHA = 0.01, 1_000_000
MOST_CLASSES, LONGEST_NAME = 100, 64  # class names: how many, and characters in each
FOREIGN_BEGINNINGS = tuple(".@$_#~")  # of folders that systems make: .git, @eaDir, $RECYCLE.BIN, __MACOSX, #recycle...
MIN_TOKEN_LENGTH = 16  # characters: a shorter one could be guessed from what is sent


class Failure(Exception):
    """An error that a user or a network can cause, with a sentence that says what to do about it."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # 2: the user's arguments or data are wrong


def run_main(main: Callable[[], object]) -> None:
    """Call the `main` of a script; a Failure ends the process with its sentence and its exit code.

    Lines are printed at once, even to a file or a pipe. Characters that the encoding lacks become question marks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # neither closed nor a notebook's
            stream.reconfigure(errors="replace", line_buffering=True)
    try:
        main()
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake in one line instead of the whole usage text."""

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(
            prog, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Converter for whole numbers of at least `minimum` and, if given, at most `maximum`."""
    limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def convert(text: str) -> int:
        with contextlib.suppress(ValueError):
            if minimum <= int(text) and (maximum is None or int(text) <= maximum):
                return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number, {limits}, not {text!r}")

    return convert


def fraction(text: str) -> float:
    """Convert to a number above 0, at most 1."""
    return _number(text, "above 0, at most 1", lambda number: 0 < number <= 1)


def concentration(text: str) -> float:
    """Convert to a number from 0.01 to 1,000,000."""
    limits = f"from {SMALLEST_ALPHA} to {LARGEST_ALPHA}"
    return _number(text, limits, lambda number: SMALLEST_ALPHA <= number <= LARGEST_ALPHA)


def seconds(text: str) -> float:
    """Convert to a number above 0."""
    return _number(text, "of seconds above 0", lambda number: 0 < number <= LONGEST_WAIT)


def _number(text: str, limits: str, is_in_range: Callable[[float], bool]) -> float:
    with contextlib.suppress(ValueError):
        if is_in_range(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number {limits}, not {text!r}")


def class_names(text: str) -> list[str]:
    """Convert a comma-separated list of class names."""
    try:
        return checked_names(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be names such as cup,spoon, not {text!r}: {error}") from None


def checked_names(names: object) -> list[str]:
    """The names of 2 to 100 classes, all of them possible names of folders; raises ValueError otherwise."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("they are not a list of names")
    names = [checked_name(name) for name in names]
    if not 2 <= len(set(names)) == len(names) <= MOST_CLASSES:
        raise ValueError(f"there must be 2 to {MOST_CLASSES} different names")
    return names


def checked_name(name: str) -> str:
    """The name of a class, normalized to be the same on all systems; raises ValueError if no folder can have it."""
    name = unicodedata.normalize("NFC", name.strip())
    is_text = name.isprintable() and 0 < len(name) <= LONGEST_NAME
    if not is_text or name.startswith(FOREIGN_BEGINNINGS) or {"/", "\\"} & {*name}:
        raise ValueError(f"{name!r} cannot be the name of a folder for a class")
    return name


def path(text: str) -> Path:
    """Convert to a path. A shell expands `~`, the home folder, in `--flag ~/file`, but not in `--flag=~/file`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no home folder for the ~ in {text!r}") from None


def content(read: Callable[[Path], Content]) -> Callable[[str], Content]:
    """Converter from a path to the result of `read`, which raises OSError or ValueError if it cannot be used."""

    def convert(name: str) -> Content:
        try:
            return read(path(name))
        except OSError as error:
            reason = error.strerror or error  # NumPy's and zipfile's have none
            raise argparse.ArgumentTypeError(f"cannot read {error.filename or name}: {reason}") from None
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"cannot use {name}: {error}") from None

    return convert


def read_token(path: Path) -> bytes:
    """The token in a file; raises ValueError if it is too short or more than one word."""
    token = path.read_bytes().strip()
    if len(token) < MIN_TOKEN_LENGTH or len(token.split()) > 1:
        raise ValueError(f"it contains no token (one word of at least {MIN_TOKEN_LENGTH} characters)")
    return token


def check_cid(parser: argparse.ArgumentParser, cid: int, num_clients: int) -> None:
    """End the process with exit code 2 if there is no partition `cid`."""
    if cid >= num_clients:
        limits = f"from 0 to {num_clients - 1} (there are {num_clients} partitions)"
        parser.error(f"argument --cid: must be {limits}, not {cid}")


def dataset_name(mnist: bool) -> str:
    """The name of the data set, with the flag --mnist or without it."""
    return "mnist" if mnist else "cifar10"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--data_dir`, which clients, server and `python -m federation.data` share."""
    parser.add_argument(
        "--data_dir",
        type=path,
        default=Path("data"),
        metavar="FOLDER",
        help="folder of the data sets; a missing one is downloaded into it (default: ./data)",
    )


def add_alpha(parser: argparse.ArgumentParser) -> None:
    """Add `--alpha`, which clients and `python -m federation.data` share."""
    parser.add_argument(
        "--alpha",
        type=concentration,
        metavar="NUMBER",
        help="spread the classes unevenly over the partitions, by a Dirichlet distribution: 0.1 very unevenly, 100 "
        "almost evenly; the same on all clients (default: evenly)",
    )


def add_token_file(parser: argparse.ArgumentParser) -> None:
    """Add `--token_file`, which clients and server share."""
    parser.add_argument(
        "--token_file",
        type=content(read_token),
        dest="token",
        metavar="FILE",
        help="file with a secret that server and clients share; clients without it are refused (default: no secret)",
    )
