"""The rounds of server.py, with the nodes of an engine in place of clients that connect."""

from __future__ import annotations

import argparse
import shlex
import sys

from federation.engine.nodes import MESSAGE_TIMEOUT, Nodes
from federation.flags import ArgumentParser
from federation.results.report import Report
from federation.server.client_manager import DeviceClientManager
from federation.server.flags import RunSettings, parse_run
from federation.server.rounds import CannotGoOn, DeviceServer

from flwr.server.strategy import Strategy


def parse_flags(parser: ArgumentParser, flags: str) -> tuple[argparse.Namespace, RunSettings]:
    """Like `parse_run`, of a command line in one string; raises ValueError where that ends the process.

    An engine does not hear of a process that ends by itself.
    """
    try:
        return parse_run(parser, shlex.split(flags))
    except SystemExit:
        raise ValueError(f"this will not do, as said above: flags={flags!r}") from None


def run_rounds(strategy: Strategy, settings: RunSettings, nodes: Nodes, quiet: bool = False) -> None:
    """Run the rounds that are missing of `settings.num_rounds`; raises RuntimeError if not all come off.

    An engine takes an end of the process for a success. `quiet`: who joins is not told.
    """
    try:
        report = Report(settings.results_dir, settings.resumed)
    except OSError as error:
        raise RuntimeError(f"cannot write results: {error}") from error
    clients = DeviceClientManager(None, settings.member, quiet)
    server = DeviceServer(strategy, settings, report, clients, MESSAGE_TIMEOUT)
    nodes.start(clients)
    try:
        server.run()
    except (CannotGoOn, OSError, SystemExit) as error:
        print(f"flower_app.py: {error}", file=sys.stderr)
    finally:
        nodes.stop()
        report.save()
        report.draw()
    done = f"{server.checkpoint.committed} of {settings.num_rounds} rounds done, results in {report.folder.resolve()}"
    print(done)
    if server.checkpoint.committed < settings.num_rounds:
        raise RuntimeError(done)
