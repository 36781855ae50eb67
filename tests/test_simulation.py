"""Flower's simulation: flower_app.py in real processes of Ray."""

from __future__ import annotations

import signal
from pathlib import Path

from federation.results import checkpoint

import psutil
import pytest
from conftest import FRAMEWORKS
from processes import PROMPTLY, Process, federate

NUM_CLIENTS = 8
CUT = "--mnist", "--num_clients", NUM_CLIENTS, "--alpha", 1


@pytest.fixture
def simulate(start, mnist, results):
    """Return a function that starts a simulation of 8 clients with uneven partitions."""

    def simulate(*flags: object) -> Process:
        folder = () if "--resume" in flags else ("--results_dir", results)
        return start("flower_app.py", *CUT, "--data_dir", mnist, *folder, *flags)

    return simulate


def model(results: Path) -> list[bytes]:
    return [array.tobytes() for array in checkpoint.load(results).model]


@pytest.mark.slow
@pytest.mark.parametrize("framework", [*FRAMEWORKS, "onnx"])
def test_the_same_seed_gives_the_model_of_server_py_bit_for_bit(simulate, processes, mnist, results, framework):
    run = "--rounds", 2, "--seed", 7
    simulation = simulate(*run, "--train_with", framework)
    assert simulation.exit_code() == 0, simulation.output
    assert simulation.output.count(f"{NUM_CLIENTS} results and 0 failures") == 2
    client = (*CUT, "--data_dir", mnist, "--threads", 1)
    by_server_py = federate(processes, f"client_{framework}.py", run, client, NUM_CLIENTS)
    assert model(results) == model(by_server_py.results)


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_the_run_goes_on_later(simulate, results):
    simulation = simulate("--rounds", 3, "--sample_fraction", 0.5, "--epochs", 30)
    simulation.wait_for(f"round 1: {NUM_CLIENTS // 2} results and 0 failures")
    of_ray = psutil.Process(simulation.popen.pid).children(recursive=True)
    assert len(of_ray) > 5
    simulation.popen.send_signal(signal.SIGINT)
    assert simulation.exit_code(PROMPTLY) == 130, simulation.output
    assert not psutil.wait_procs(of_ray, PROMPTLY)[1]
    resumed = simulate("--rounds", 2, "--resume", results)
    assert resumed.exit_code() == 0, resumed.output
    assert "going on after round 1" in resumed.output and "2 of 2 rounds done" in resumed.output


@pytest.mark.slow
def test_a_gpu_that_is_not_there(simulate, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    simulation = simulate("--gpu_share", 0.5)
    assert simulation.exit_code() == 1
    assert "--gpu_share 0.5 needs a GPU, but Ray finds none" in simulation.output
    assert "Traceback" not in simulation.output


@pytest.mark.parametrize(
    ("flags", "exit_code", "sentence"),
    [
        (("--gpu_share", 2), 2, "argument --gpu_share: must be a number above 0, at most 1, not '2'"),
        (("--num_clients", 5000), 1, "Cannot partition 4500 images among 5000 clients: each needs at least 2. Use"),
    ],
)
def test_what_cannot_be_simulated_is_told_before_anything_starts(simulate, flags, exit_code, sentence):
    simulation = simulate(*flags)
    assert simulation.exit_code(PROMPTLY) == exit_code
    assert sentence in simulation.output and "Traceback" not in simulation.output
