"""Partition CIFAR-10 or MNIST, and write the partitions into files that clients load.

To prepare partitions on a laptop, then copy the folder `data` to devices without internet:

    python -m federation.data --cid 0 1 2 --mnist
    python -m federation.data --cid 0 1 2 --num_clients 10 --alpha 0.3

To draw each client's share of each class, and to make a partition from your own pictures, in one folder per class:

    python -m federation.data --show --num_clients 10 --alpha 0.3 --mnist
    python -m federation.data --from_folder photos --cid 7

It prints the paths of the files, one per line. Everything else goes to stderr. The folder contains each data set as
the Hugging Face Hub lays it out, and the files that were made from it:

    data/mnist/train-00000-of-00001.parquet    found there, or downloaded
    data/mnist/50/7.npz                        partition 7 of 50
    data/mnist/50-alpha0.3/7.npz               partition 7 of an uneven partitioning
    data/mnist/test.npz                        the test split, for the server
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from federation.data.cutting import prepare, show
from federation.data.hub import DataError
from federation.data.partitions import NUM_CLIENTS, Partitioning
from federation.data.photos import write_photos
from federation.flags import (
    ArgumentParser,
    add_alpha,
    add_data_dir,
    check_cid,
    dataset_name,
    path,
    run_main,
    whole_number,
)


def main() -> None:
    """Make the files that the command line asks for."""
    args = parse()
    try:
        with redirect_stdout(sys.stderr):  # whatever libraries print: another program may read the paths
            ready = make(args)
    except OSError as error:
        raise DataError(f"{error}") from error
    print(*ready, sep="\n")


def parse() -> argparse.Namespace:
    """Read the command line; ends the process with exit code 2 and one sentence if it is wrong."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--cid", type=whole_number(0), nargs="+", default=[], help="numbers of the partitions to make")
    parser.add_argument(
        "--num_clients", type=whole_number(1), default=NUM_CLIENTS, help="number of partitions (default: %(default)s)"
    )
    add_alpha(parser)
    parser.add_argument("--test", action="store_true", help="make the test split too")
    parser.add_argument("--show", action="store_true", help="draw each client's share of each class, in a file")
    parser.add_argument(
        "--from_folder",
        type=path,
        metavar="FOLDER",
        help="make one partition, or the test split, from the pictures in FOLDER, which contains one folder per class "
        "(default: from the data set)",
    )
    parser.add_argument("--mnist", action="store_true", help="MNIST (default: CIFAR-10)")
    add_data_dir(parser)
    args = parser.parse_args()
    if not (args.cid or args.test or args.show):
        parser.error("nothing to do: give --cid, --test or --show")
    for cid in args.cid:
        check_cid(parser, cid, args.num_clients)
    if args.from_folder and (args.show or len(args.cid) + args.test != 1):
        parser.error("argument --from_folder: makes only one file: give one --cid or --test")
    return args


def make(args: argparse.Namespace) -> list[Path]:
    """Make the files that the arguments ask for, unless they exist; raises DataError or OSError."""
    partitioning = Partitioning(dataset_name(args.mnist), args.data_dir, args.num_clients, args.alpha)
    if args.from_folder:
        target = partitioning.file(args.cid[0]) if args.cid else partitioning.test_file
        write_photos(target, partitioning.dataset, args.from_folder)
        return [target]
    ready = prepare(partitioning, args.cid, args.test) if args.cid or args.test else []
    return [*ready, show(partitioning)] if args.show else ready


if __name__ == "__main__":
    run_main(main)
