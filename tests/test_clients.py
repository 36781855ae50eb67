"""The clients: learning, both data sets, both frameworks, old package sets."""

from __future__ import annotations

import os
import re
import signal

from federation.results.tables import read_table

import numpy as np
import pytest
from conftest import FRAMEWORKS, PY38_PYTORCH, PY38_TF, needs_py38_pytorch, needs_py38_tf
from processes import PROMPTLY, federate

THREE_ROUNDS = "--rounds", 3, "--sample_fraction", 1.0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_mnist_is_learnt(processes, mnist, framework):
    server_arguments = (*THREE_ROUNDS, "--evaluate_with", framework, "--mnist", "--data_dir", mnist)
    client_arguments = ("--mnist", "--num_clients", 2, "--data_dir", mnist)
    federation = federate(processes, f"client_{framework}.py", server_arguments, client_arguments)
    assert len(federation.rounds) == 3
    assert float(federation.rounds[-1]["central_accuracy"]) >= 0.95
    assert float(federation.rounds[-1]["accuracy"]) >= 0.93  # on 450 images
    classes = read_table(federation.results / "classes.csv")
    assert [(row["round"], row["label"]) for row in classes] == [(f"{i}", f"{j}") for i in (1, 2, 3) for j in range(10)]
    assert all(row["class"] == row["label"] for row in classes)  # digits have no other names
    correct = sum(int(row["examples"]) * float(row["accuracy"]) for row in classes[-10:])
    assert correct / 500 == pytest.approx(float(federation.rounds[-1]["central_accuracy"]), abs=1e-6)
    for client in federation.clients:  # one line per fit and evaluate, no progress bars
        assert [line.split(",")[0] for line in client.output.splitlines() if line.startswith("round")] == [
            f"round {server_round}: {task} examples"
            for server_round in (1, 2, 3)
            for task in ("fit on 2025", "evaluate on 225")
        ]
    with np.load(federation.results / "model.npz") as model:
        assert sum(model[name].size for name in model.files) == 44426
    for row in federation.client_rows:
        assert row["device"] and float(row["peak_memory_mb"]) > 0 and 0 < float(row["seconds"]) < 300


def test_one_round_is_enough_with_a_network_that_is_trained_already(processes, mnist):
    """On digits, of which it has seen none."""
    server_arguments = ("--rounds", 2, "--evaluate_with", "onnx", "--mnist", "--data_dir", mnist, "--fit_seconds", 3600)
    client_arguments = ("--mnist", "--num_clients", 10, "--data_dir", mnist)
    run = federate(processes, "client_onnx.py", server_arguments, client_arguments)
    accuracies = [float(row["central_accuracy"]) for row in run.rounds]
    assert accuracies[0] == accuracies[1] > 0.85  # with 810 images
    new, known = (float(row["seconds"]) for row in run.client_rows if row["cid"] == "0")
    assert known < new / 3
    assert sum(float(row[column]) for row in run.client_rows for column in ("sent_mb", "received_mb")) < 8
    with np.load(run.results / "model.npz") as model:
        assert [(model[name].dtype.str, model[name].size) for name in model.files] == [("<f2", 462241), ("<f2", 9610)]


@pytest.mark.slow
def test_clients_on_one_machine_share_its_cores(processes, mnist):
    """With more threads than cores, a round would take minutes."""
    cores = len(os.sched_getaffinity(0))
    client_arguments = ("--mnist", "--num_clients", 2, "--data_dir", mnist)
    for client in federate(processes, "client_pytorch.py", THREE_ROUNDS, client_arguments).clients:
        threads = re.findall(rf"training on (\d+) of {cores} cores", client.output)
        assert int(threads[-1]) <= max(1, cores // 2)


@pytest.mark.parametrize("framework", ["pytorch", pytest.param("tf", marks=pytest.mark.slow)])
def test_cifar10_runs(processes, cifar10, framework):
    server_arguments = ("--rounds", 2, "--epochs", 1, "--evaluate_with", framework, "--data_dir", cifar10)
    client_arguments = ("--num_clients", 4, "--data_dir", cifar10)
    federation = federate(processes, f"client_{framework}.py", server_arguments, client_arguments)
    assert len(federation.rounds) == 2
    assert "fit on 90 examples" in federation.clients[0].output
    with np.load(federation.results / "model.npz") as model:
        arrays = [model[name] for name in model.files]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
    assert 1.4e6 < sum(array.size for array in arrays) < 1.7e6


@pytest.mark.parametrize(
    ("framework", "python"),
    [
        pytest.param("tf", PY38_TF, marks=needs_py38_tf),
        pytest.param("pytorch", PY38_PYTORCH, marks=needs_py38_pytorch),
    ],
)
def test_clients_of_jetsons_with_a_server_on_the_newest_flower(processes, mnist, framework, python):
    client_arguments = ("--mnist", "--num_clients", 2, "--data_dir", mnist)
    federation = federate(processes, f"client_{framework}.py", THREE_ROUNDS, client_arguments, python=python)
    assert "DEPRECATED" not in federation.server.output and "INFO" not in federation.server.output
    assert float(federation.rounds[-1]["accuracy"]) >= 0.93


def test_a_client_waits_for_its_server_comes_back_to_it_and_ends_at_ctrl_c(start, address, tmp_path, mnist):
    arguments = ("--mnist", "--num_clients", 20, "--data_dir", mnist)
    client = start("client_pytorch.py", "--cid", 4, "--server_address", address, *arguments)
    client.wait_for(f"no server at {address} yet")
    for attempt in (1, 2):
        server = start("server.py", "--server_address", address, "--results_dir", tmp_path / f"results{attempt}")
        server.wait_for("has joined, 1 now")
        server.popen.kill()
        client.wait_for(f"lost the server at {address}", count=attempt)
    client.popen.send_signal(signal.SIGINT)
    assert client.exit_code(PROMPTLY) == 130
    assert "Traceback" not in client.output


def test_a_server_that_is_plain_flower_and_sends_no_config(start, address, mnist):
    code = (
        "import sys, federation; from flwr.server import ServerConfig, start_server, strategy\n"
        "strategy = strategy.FedAvg(min_fit_clients=1, min_evaluate_clients=1, min_available_clients=1)\n"
        "start_server(server_address=sys.argv[1], strategy=strategy, config=ServerConfig(num_rounds=2))"
    )
    server = start("-c", code, address)
    arguments = ("--mnist", "--num_clients", 20, "--data_dir", mnist, "--server_address", address)
    client = start("client_pytorch.py", "--cid", 0, *arguments)
    assert client.exit_code() == 0, client.output
    assert server.exit_code() == 0, server.output
    assert client.output.count("fit on ") == 2 and client.output.count("evaluate on ") == 2


def test_no_client_without_data(start, tmp_path):
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    client = start("client_pytorch.py", "--cid", 0, "--data_dir", tmp_path / "empty", env=hub)
    assert client.exit_code() != 0
    assert "cifar10" in client.output and str(tmp_path / "empty") in client.output
    assert "Traceback" not in client.output


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_pytorch_client_imports_no_more_than_it_uses(start, dataset):
    code = (
        "import sys, numpy as np\n"
        "import client_pytorch as client\n"
        "from federation.data.partition_file import Examples\n"
        f"shape = (20, 28, 28, 1) if {dataset!r} == 'mnist' else (20, 32, 32, 3)\n"
        "examples = Examples(np.zeros(shape, np.uint8), np.arange(20) % 10)\n"
        f"flower_client = client.FlowerClient({dataset!r}, examples, examples)\n"
        "parameters = flower_client.get_parameters({})\n"
        "parameters, _, _ = flower_client.fit(parameters, {'epochs': 1, 'batch_size': 16})\n"
        "flower_client.evaluate(parameters, {})\n"
        "heavy = 'torchvision torchvision.datasets torch._dynamo sympy datasets pandas pyarrow matplotlib'.split()\n"
        "print('in memory:', [name for name in heavy if name in sys.modules])\n"
        "import torch, torchvision.datasets; print(torchvision.datasets.MNIST)\n"
        "print('afterwards', torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)))\n"
    )
    process = start("-c", code)
    assert process.exit_code() == 0, process.output
    assert f"in memory: {['torchvision'] if dataset == 'cifar10' else []}" in process.output
    assert "afterwards tensor([2.])" in process.output  # the compiler is there for those who want it


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fit_ends_when_its_seconds_are_over(start, framework):
    code = (
        "import time, numpy as np\n"
        f"import client_{framework} as client\n"
        "from federation.data.partition_file import Examples\n"
        "rates = []\n"
        "one_cycle = client.one_cycle\n"
        "client.one_cycle = lambda progress: (rates.append(one_cycle(progress)), rates[-1])[1]\n"
        "examples = Examples(np.zeros((100, 28, 28, 1), np.uint8), np.zeros(100, np.int64))\n"
        "flower_client = client.FlowerClient('mnist', examples, examples)\n"
        "arrays = [array.copy() for array in flower_client.get_parameters({})]\n"
        "flower_client.fit(arrays, {'epochs': 1, 'batch_size': 10})\n"  # TensorFlow prepares for long
        "for seconds, epochs in ((2.0, 100_000), (1e-9, 5), (3600.0, 2)):\n"
        "    rates.clear()\n"
        "    started = time.monotonic()\n"
        "    config = {'epochs': epochs, 'batch_size': 10, 'fit_seconds': seconds}\n"
        "    _, _, metrics = flower_client.fit(arrays, config)\n"
        "    print('fit', metrics['epochs'], len(rates), max(rates), rates[-1], time.monotonic() - started)\n"
    )
    process = start("-c", code)
    assert process.exit_code() == 0, process.output
    fits = [list(map(float, line.split()[1:])) for line in process.own_lines if line.startswith("fit ")]
    assert all(epochs == pytest.approx(steps / 10) for epochs, steps, *_ in fits)
    (epochs, _, highest, last, seconds), least, whole = fits
    assert epochs < 100_000 and 2.0 <= seconds < 2.0 + PROMPTLY
    assert 1 >= highest > 0.7 and 0 < last < 0.7 * highest  # up, then down, as in a fit that comes to its end
    assert least[1] == 1 and whole[1] == 20


@pytest.mark.slow
def test_rounds_end_on_time(processes, mnist):
    """To do all epochs would take hours, on any machine."""
    server_arguments = *THREE_ROUNDS, "--epochs", 1_000_000, "--fit_seconds", "auto"
    federation = federate(processes, "client_pytorch.py", server_arguments, ("--mnist", "--data_dir", mnist))
    for row in federation.client_rows:
        assert float(row["seconds"]) < PROMPTLY
        assert 0 < float(row["epochs"]) < 1_000_000 and int(row["examples"]) == 81  # that is how much it counts
