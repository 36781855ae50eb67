"""A parser of command lines and checks that turn a mistake into one clear sentence and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import unicodedata
from pathlib import Path
from typing import Callable, NoReturn, TypeVar

Content = TypeVar("Content")
LONGEST_WAIT = 30 * 24 * 3600  # seconds; more than any clock or lock here has to stand
# Of a Dirichlet distribution. Below, NumPy's versions do not draw the same numbers; above, nothing changes any more.
SMALLEST_ALPHA, LARGEST_ALPHA = 0.01, 1_000_000
MOST_CLASSES, LONGEST_NAME = 100, 64  # names of classes: how many, characters in each
FOREIGN_BEGINNINGS = tuple(".@$_#~")  # of folders that no user made: .git, @eaDir, $RECYCLE.BIN, __MACOSX, #recycle...
MIN_TOKEN_LENGTH = 16  # characters: a short one could be guessed from what travels


class Failure(Exception):
    """What a user or a network can cause: a sentence that says what to do about it."""

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # 2: wrong arguments or unusable data of the user's


def run_main(main: Callable[[], object]) -> None:
    """Call the `main` of a script; a Failure ends the process with its sentence and its exit code.

    Each line is printed at once, to a file or pipe too; a question mark stands for what the encoding lacks.
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
    """An argparse parser that answers a mistake with one line instead of the whole usage text."""

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(
            prog, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Converter for whole numbers from `minimum` on, up to `maximum` if there is one."""
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
    """Convert from names of classes with commas between them."""
    try:
        return checked_names(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be names such as cup,spoon, not {text!r}: {error}") from None


def checked_names(names: object) -> list[str]:
    """The names of 2 to 100 classes, each of which a folder can have, too; raises ValueError if they are not that."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("they are no list of names")
    names = [checked_name(name) for name in names]
    if not 2 <= len(set(names)) == len(names) <= MOST_CLASSES:
        raise ValueError(f"they have to be 2 to {MOST_CLASSES} different ones")
    return names


def checked_name(name: str) -> str:
    """The name of a class in the form in which all systems write it; raises ValueError if no folder can have it."""
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
    """Converter from a name to what `read` makes of the file or folder; it raises OSError or ValueError."""

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
    """The name of the data set that the flag --mnist, given or not, stands for."""
    return "mnist" if mnist else "cifar10"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--data_dir`, which clients, server and `python -m federation.data` share."""
    parser.add_argument(
        "--data_dir",
        type=path,
        default=Path("data"),
        metavar="FOLDER",
        help="where the data sets are, or where they are downloaded to (default: ./data)",
    )


def add_alpha(parser: argparse.ArgumentParser) -> None:
    """Add `--alpha`, which clients and `python -m federation.data` share."""
    parser.add_argument(
        "--alpha",
        type=concentration,
        metavar="NUMBER",
        help="how unevenly the classes are spread over the partitions, by a Dirichlet distribution: 0.1 very, 100 "
        "hardly, the same on all clients (default: each partition has its share of each class)",
    )


def add_token_file(parser: argparse.ArgumentParser) -> None:
    """Add `--token_file`, which clients and server share."""
    parser.add_argument(
        "--token_file",
        type=content(read_token),
        dest="token",
        metavar="FILE",
        help="a secret that server and clients share; clients without it cannot take part (default: anybody can)",
    )
