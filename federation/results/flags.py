"""The flags about a run's results: where they go, which run to resume, and the seed that run.json keeps."""

from __future__ import annotations

import argparse
import secrets
import time
from pathlib import Path

from federation.flags import ArgumentParser, content, path, whole_number
from federation.results import checkpoint, run_file

MAX_SEED = 2**32 - 1  # NumPy and Keras take no larger one


def add_results_flags(parser: ArgumentParser) -> None:
    """Add `--results_dir`, `--resume` and `--seed`."""
    results = parser.add_mutually_exclusive_group()
    results.add_argument(
        "--results_dir",
        type=_new_results,
        default=Path("results", time.strftime("%Y-%m-%d-%H%M%S")),
        metavar="FOLDER",
        help="folder for the results (default: results/<date-time>)",
    )
    results.add_argument(
        "--resume",
        type=content(lambda folder: (folder, checkpoint.load(folder))),
        metavar="FOLDER",
        help="resume the run whose results are in this folder (default: start a new run)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0, MAX_SEED),
        metavar="NUMBER",
        help="seed of the run's random numbers: the same seed gives the same run (default: a new seed, kept in "
        "run.json)",
    )


def read_results_flags(
    parser: ArgumentParser, args: argparse.Namespace
) -> tuple[Path, checkpoint.Checkpoint | None, int]:
    """The folder of results, the checkpoint to resume from (None: a new run), and the run's seed.

    Ends the process with exit code 2 if the run to resume has another seed than --seed.
    """
    folder, resumed = args.resume or (args.results_dir, None)
    seed = args.seed if resumed is None else run_file.read(folder).get("seed", args.seed)
    if args.seed not in (None, seed):
        parser.error(f"argument --seed: the run in {folder} has seed {seed}")
    return folder, resumed, secrets.randbelow(MAX_SEED + 1) if seed is None else seed


def _new_results(text: str) -> Path:
    """Check a folder for the results of a new run."""
    folder = path(text)
    if (folder / "rounds.csv").exists():
        raise argparse.ArgumentTypeError(f"{text} contains the results of another run (--resume continues it)")
    return folder
