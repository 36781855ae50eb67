"""Cut CIFAR-10 or MNIST into partitions and load the one that belongs to a client.

To prepare partitions on a laptop, then copy the folder `data` to devices without internet:

    python -m federation.data --cid 0 1 2 --mnist
    python -m federation.data --cid 0 1 2 --num_clients 10 --alpha 0.3

To see who has how much of which class, and to make a partition of own pictures, in a folder for each class:

    python -m federation.data --show --num_clients 10 --alpha 0.3 --mnist
    python -m federation.data --from_folder photos --cid 7

The folder holds each data set as the Hugging Face Hub lays it out, and beside it what was made from it:

    data/mnist/train-00000-of-00001.parquet    found there, or downloaded
    data/mnist/50/7.npz                        partition 7 of 50
    data/mnist/50-alpha0.3/7.npz               another one, of an uneven cut
    data/mnist/test.npz                        the test split, for the server
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from federation.data.hub import DataError
from federation.data.partitions import NUM_CLIENTS, Partition, end, prepare, show, test_file
from federation.data.photos import write_pictures
from federation.flags import ArgumentParser, add_alpha, add_data_dir, check_cid, dataset_name, path, whole_number


def main() -> None:
    """Make what the command line asks for."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--cid", type=whole_number(0), nargs="+", default=[], help="the partitions to make")
    parser.add_argument(
        "--num_clients", type=whole_number(1), default=NUM_CLIENTS, help="number of partitions (default: %(default)s)"
    )
    add_alpha(parser)
    parser.add_argument("--test", action="store_true", help="make the test split too")
    parser.add_argument("--show", action="store_true", help="draw who has how much of which class, into a file")
    parser.add_argument(
        "--from_folder",
        type=path,
        metavar="FOLDER",
        help="make one partition, or the test split, of the pictures in this folder, which has a folder for each class "
        "(default: cut it from the data set)",
    )
    parser.add_argument("--mnist", action="store_true", help="MNIST (default: CIFAR-10)")
    add_data_dir(parser)
    parser.add_argument("--reason", type=Path, help=argparse.SUPPRESS)  # a file for the message if it fails
    args = parser.parse_args()
    if not (args.cid or args.test or args.show):
        parser.error("nothing to do: give --cid, --test or --show")
    for cid in args.cid:
        check_cid(parser, cid, args.num_clients)
    if args.from_folder and (args.show or len(args.cid) + args.test != 1):
        parser.error("argument --from_folder: makes one thing: give one --cid or --test")
    if args.from_folder and args.alpha is not None:
        parser.error("argument --alpha: pictures are not cut, so it has no use with --from_folder")
    dataset = dataset_name(args.mnist)
    try:
        if args.from_folder:
            made = [Partition(dataset, cid, args.num_clients, args.data_dir).path for cid in args.cid]
            write_pictures((made or [test_file(dataset, args.data_dir)])[0], dataset, args.from_folder)
        elif args.cid or args.test:
            prepare(dataset, args.cid, args.num_clients, args.data_dir, args.alpha, args.test)
        if args.show:
            print(f"{show(dataset, args.num_clients, args.data_dir, args.alpha)} shows who has how much of which class")
    except (DataError, OSError) as error:
        if args.reason:
            args.reason.write_text(f"{error}")
        if isinstance(error, DataError):
            end(error)
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
