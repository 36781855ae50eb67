"""The operational flags of a client, and its whole command line as a typed value."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path

from federation.client.power import PowerSource, plug
from federation.client.threads import Threads
from federation.data.partitions import Partitioning
from federation.flags import (
    ArgumentParser,
    add_alpha,
    add_data_dir,
    add_token_file,
    check_cid,
    content,
    dataset_name,
    seconds,
    whole_number,
)
from federation.wire import tls
from federation.wire.addresses import Address


@dataclass(frozen=True)
class ClientSettings:
    """What the command line says about a client."""

    partitioning: Partitioning
    cid: int  # the partition of this client
    threads: Threads = field(default_factory=Threads)
    server_address: Address | None = None  # None: look for it on the network
    root_certificate: bytes | None = None  # PEM; None: not encrypted
    token: bytes | None = None
    retry_for: float = math.inf  # seconds
    plug: PowerSource | None = None  # the metering plug of this device

    @property
    def dataset(self) -> str:
        """The data set that the model is for: "mnist", "cifar10", or "photos" in the folder `partitioning.data_dir`."""
        return self.partitioning.dataset


def parse_client(parser: ArgumentParser, num_clients: int) -> tuple[argparse.Namespace, ClientSettings]:
    """Add the operational flags to those that the script has declared; return what the command line says.

    `num_clients` is the default number of partitions. Ends the process with exit code 2 and one sentence if a value is
    wrong.
    """
    add_flags_of_operation(parser, num_clients)
    args = parser.parse_args()
    partitioning = Partitioning(dataset_name(args.mnist), args.data_dir, args.num_clients, args.alpha)
    if getattr(args, "photos", None) is None:
        check_cid(parser, args.cid, args.num_clients)
    else:
        if partitioning != ("cifar10", Path("data"), num_clients, None):
            parser.error("argument --photos: replaces the data set and its partitions: leave out their flags")
        partitioning = Partitioning("photos", args.photos, num_clients=0)
    settings = ClientSettings(
        partitioning=partitioning,
        cid=args.cid,
        server_address=args.server_address,
        threads=Threads(args.threads),
        root_certificate=args.root_certificate,
        token=args.token,
        retry_for=args.retry_for,
        plug=args.plug,
    )
    return args, settings


def add_flags_of_operation(parser: ArgumentParser, num_clients: int) -> None:
    """Add the flags that a reader of the client script does not need to know."""
    parser.add_argument(
        "--num_clients",
        type=whole_number(1),
        default=num_clients,
        help="number of partitions of the data set, the same on all clients (default: %(default)s)",
    )
    add_alpha(parser)
    add_data_dir(parser)
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="NUMBER",
        help="number of threads to train with (default: this client's share of the cores, at most 4)",
    )
    parser.add_argument(
        "--root_certificate",
        type=content(tls.read_root_certificate),
        metavar="FILE",
        help="encrypt (TLS), and trust only a server whose certificate was signed with this one, its ca.crt "
        "(default: not encrypted)",
    )
    add_token_file(parser)
    parser.add_argument(
        "--retry_for",
        type=seconds,
        default=math.inf,
        metavar="SECONDS",
        help="give up after this long without a connection (default: never)",
    )
    parser.add_argument(
        "--meter",
        type=plug,
        dest="plug",
        metavar="URL",
        help="address of a Shelly or Tasmota plug that measures this device's power, such as http://192.168.1.20 "
        "(default: use the device's own sensors)",
    )
