"""Who a client is, for the server's handshake."""

from __future__ import annotations

import inspect
from pathlib import Path

from federation.client.about import describe, versions
from federation.data.partition_file import read_classes
from federation.data.partitions import Partition
from federation.wire.handshake import Identity, class_list, fingerprint, printable

from flwr.client import NumPyClient


def identify(client: NumPyClient, partition: Partition, instance: str, keeps_model: bool) -> Identity:
    """Return the identity of a script's client that has this partition; for the last two, see `Identity`."""
    return Identity(
        cid=partition.cid,
        device=printable(describe()),
        instance=instance,
        script=printable(Path(inspect.getfile(type(client))).name),
        dataset=partition.dataset,
        num_clients=partition.num_clients,
        model=fingerprint(client.get_parameters({})),
        alpha="" if partition.alpha is None else str(partition.alpha),
        classes=class_list(read_classes(partition.path)),
        versions=printable(versions()),
        keeps_model=keeps_model,
    )
