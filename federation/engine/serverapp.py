"""The rounds of server.py, with the nodes of an engine in place of clients that connect."""

from __future__ import annotations

import argparse
import shlex

from federation.engine.nodes import Nodes
from federation.flags import ArgumentParser, Failure
from federation.server.flags import RunSettings, parse_run
from federation.server.rounds import DeviceServer

from flwr.server.strategy import Strategy


def parse_flags(parser: ArgumentParser, flags: str) -> tuple[argparse.Namespace, RunSettings]:
    """Like `parse_run`, for a command line in one string; raises ValueError where that ends the process.

    An engine does not notice a process that ends by itself.
    """
    try:
        return parse_run(parser, shlex.split(flags))
    except SystemExit:
        raise ValueError(f"cannot use flags={flags!r}: the reason is above") from None


def run_rounds(strategy: Strategy, settings: RunSettings, nodes: Nodes, quiet: bool = False) -> None:
    """Run the remaining rounds of `settings.num_rounds`; raises Failure or OSError if not all succeed.

    An engine takes the end of the process for a success. `quiet`: do not print who joins.
    """
    server = DeviceServer(strategy, settings, quiet=quiet)
    nodes.start(server.clients)
    try:
        server.run()
    finally:
        nodes.stop()
        server.report.save()
        server.report.draw()
        committed, folder = server.checkpoint.committed, server.report.folder.resolve()
        print(f"{committed} of {settings.num_rounds} rounds done, results in {folder}")
    if committed < settings.num_rounds:
        raise Failure("not all rounds succeeded")
