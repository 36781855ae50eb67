"""The operational flags of the server, and its command line as typed values."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

from federation.flags import ArgumentParser, add_data_dir, add_token_file, content, seconds
from federation.results.checkpoint import Checkpoint
from federation.results.flags import add_results_flags, read_results_flags
from federation.server.fit_config import AUTO, FitBound
from federation.wire import tls
from federation.wire.addresses import Address, listen_address


@dataclass(frozen=True)
class RunSettings:
    """What the command line says about a run, wherever its clients are."""

    num_rounds: int
    min_num_clients: int
    round_timeout: float  # seconds
    wait_timeout: float  # seconds
    results_dir: Path
    resumed: Checkpoint | None  # None: a new run
    seed: int
    fit_bound: FitBound
    half_precision: bool  # models travel as float16
    every: float  # least seconds from the start of a round to that of the next
    flags: Mapping[str, Any]  # all of the command line, for run.json


@dataclass(frozen=True)
class ServerSettings:
    """What the command line says about a server that clients connect to."""

    run: RunSettings
    server_address: Address  # to listen on
    plain: bool  # no table on a terminal
    certificates: tuple[bytes, bytes, bytes] | None  # CA, server's certificate, its key; None: not encrypted
    token: bytes | None
    announce: bool = True
    classes: list[str] = field(default_factory=list)  # for clients with photos; none: they use their own


def parse_server(parser: ArgumentParser) -> tuple[argparse.Namespace, ServerSettings]:
    """Add the operational flags to those that the script has declared; return what the command line says.

    Ends the process with exit code 2 and one sentence if a value is wrong.
    """
    parser.add_argument(
        "--server_address",
        type=listen_address,
        default="0.0.0.0:8080",
        help="HOST:PORT to listen on (default: %(default)s, all addresses of this machine)",
    )
    parser.add_argument(
        "--no_announce",
        dest="announce",
        action="store_false",
        help="do not announce this server on the local network (default: clients there find it without its address)",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="print only lines, no table of the clients (default: also a table, if the output is a terminal)",
    )
    parser.add_argument(
        "--certificates",
        type=content(tls.read_server_certificates),
        metavar="FOLDER",
        help="encrypt (TLS) with the files that make_certificates.sh made in this folder (default: not encrypted)",
    )
    add_token_file(parser)
    args, run = parse_run(parser)
    return args, ServerSettings(run, args.server_address, args.plain, args.certificates, args.token, args.announce)


def parse_run(
    parser: ArgumentParser, command_line: Sequence[str] | None = None
) -> tuple[argparse.Namespace, RunSettings]:
    """Like `parse_server`, for a run without a server; by default, parse this process's command line."""
    add_flags_of_a_run(parser)
    args = parser.parse_args(command_line)
    folder, resumed, seed = read_results_flags(parser, args)
    bound: FitBound = args.fit_seconds
    given = {"resume": args.resume and folder, "fit_seconds": "auto" if bound.is_auto else bound.seconds}
    settings = RunSettings(
        num_rounds=args.rounds,
        min_num_clients=args.min_num_clients,
        round_timeout=args.round_timeout,
        wait_timeout=args.wait_timeout,
        results_dir=folder,
        resumed=resumed,
        seed=seed,
        fit_bound=bound,
        half_precision=args.half_precision,
        every=args.every,
        flags={**vars(args), **given},
    )
    return args, settings


def add_flags_of_a_run(parser: ArgumentParser) -> None:
    """Add the flags about a run that a reader of the script does not need to know."""
    waits = {
        "--round_timeout": "how long a round waits for its clients to train, and then again for them to evaluate",
        "--wait_timeout": "how long to wait for --min_num_clients before giving up",
    }
    for flag, what in waits.items():
        parser.add_argument(flag, type=seconds, default=3600, metavar="SECONDS", help=f"{what} (default: %(default)g)")
    parser.add_argument(
        "--fit_seconds",
        type=fit_bound,
        default=FitBound(),
        metavar="SECONDS|auto",
        help="most seconds that a client trains in a round; what it has done by then counts; auto: adapt this to the "
        "clients' speeds (default: until its epochs are done)",
    )
    parser.add_argument(
        "--half_precision",
        action="store_true",
        help="send and receive models rounded to float16, in less than half the bytes (default: unchanged)",
    )
    parser.add_argument(
        "--every",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="start each round at least this long after the start of the one before (default: no pause)",
    )
    add_data_dir(parser)
    add_results_flags(parser)


def fit_bound(text: str) -> FitBound:
    """Convert from a number of seconds above 0, or the word auto."""
    return AUTO if text == "auto" else FitBound(seconds(text))
