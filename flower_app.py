"""The same federation on Flower's engines: a thousand clients on this machine, or devices in many networks.

A simulation, which runs one client at a time on each core of this machine:

    python flower_app.py --num_clients 1000 --sample_fraction 0.1 --rounds 3 --mnist

On devices that run a SuperNode, if your Flower configuration lists their SuperLink under the name fleet:

    flwr run . fleet --stream --run-config 'flags="--rounds 3 --min_num_clients 2 --mnist"'
"""

from __future__ import annotations

import argparse
from typing import Any

from federation.data.partitions import Partitioning, prepare_all
from federation.engine.clientapp import answer_message
from federation.engine.nodes import Nodes, SharedNodes
from federation.engine.serverapp import parse_flags, run_rounds
from federation.flags import ArgumentParser, add_alpha, dataset_name, fraction, run_main, whole_number
from federation.server.flags import parse_run

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server import add_flags, build_strategy

client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
@client_app.train()
@client_app.evaluate()
def answer(message: Message, context: Context) -> Message:
    """Answer the server. Flower calls this where the client runs: on a device, or in a process of the simulation."""
    return answer_message(message, context)


@server_app.main()
def run(grid: Grid, context: Context) -> None:
    """Run the rounds that `flwr run` asks for. Flower calls this next to the SuperLink."""
    parser = ArgumentParser(__doc__, prog="flower_app.py")
    parser.add_argument(
        "--min_num_clients",
        type=whole_number(1),
        default=2,
        help="start a round only when at least this many devices are connected (default: %(default)s)",
    )
    add_all_flags(parser)
    args, settings = parse_flags(parser, str(context.run_config["flags"]))
    run_rounds(build_strategy(args), settings, Nodes(grid, what_to_train(args)))


def main() -> None:
    """Simulate the federation that the command line describes."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--num_clients",
        type=whole_number(1),
        dest="min_num_clients",  # simulated clients are always there
        default=50,
        help="number of clients, and of partitions of the data set (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu_share",
        type=fraction,
        default=0,
        help="fraction of a GPU that each client uses, such as 0.25 for four clients at a time (default: no GPU)",
    )
    add_all_flags(parser)
    args, settings = parse_run(parser)
    from federation.engine.simulation import simulate  # here, because only this needs Ray

    prepare_all(Partitioning(dataset_name(args.mnist), args.data_dir, args.min_num_clients, args.alpha))
    told = {**what_to_train(args), "data-dir": str(args.data_dir.resolve()), "simulated": True}

    def run_simulated(grid: Grid) -> None:
        run_rounds(build_strategy(args), settings, SharedNodes(grid, told, args.min_num_clients), quiet=True)

    simulate(run_simulated, client_app, args.gpu_share)


def add_all_flags(parser: ArgumentParser) -> None:
    """Add the flags of server.py that suit an engine, and those that a client script would have on a device."""
    add_flags(parser)
    parser.add_argument(
        "--train_with",
        choices=("pytorch", "tf", "onnx"),
        default="pytorch",
        help="use the clients of client_pytorch.py, client_tf.py or client_onnx.py (default: %(default)s)",
    )
    parser.add_argument("--mnist", action="store_true", help="a small CNN on MNIST (default: MobileNet on CIFAR-10)")
    add_alpha(parser)


def what_to_train(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that go to clients with each message, because they have no command line."""
    told = {"script": f"client_{args.train_with}", "dataset": dataset_name(args.mnist)}
    return told if args.alpha is None else {**told, "alpha": args.alpha}


if __name__ == "__main__":
    run_main(main)
