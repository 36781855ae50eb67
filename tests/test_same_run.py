"""The same run again: one seed gives one model, bit for bit, whatever was killed in between."""

from __future__ import annotations

import json
import time

from federation.results import checkpoint

import pytest
from processes import free_address

SERVER = "--rounds", 3, "--min_num_clients", 2


class Run:
    """A server and two clients, which can be killed and started again."""

    def __init__(self, start, script: str, data_dir, results, epochs: int, seed: int | None) -> None:
        self.start, self.script, self.results = start, script, results
        self.address = free_address()
        self.data = "--mnist", "--num_clients", 10, "--data_dir", data_dir, "--threads", 1
        seeded = () if seed is None else ("--seed", seed)
        self.flags = *SERVER, "--server_address", self.address, "--epochs", epochs
        self.server = start("server.py", *self.flags, *seeded, "--results_dir", results)
        self.clients = {}

    def start_client(self, cid: int) -> None:
        self.clients[cid] = self.start(self.script, "--cid", cid, "--server_address", self.address, *self.data)

    def resume(self) -> None:
        self.server.popen.kill()
        self.server.popen.wait()
        self.server = self.start("server.py", *self.flags, "--resume", self.results)

    def model(self) -> list[bytes]:
        assert self.server.exit_code() == 0, self.server.output
        for client in self.clients.values():
            assert client.exit_code() == 0, client.output
        return [array.tobytes() for array in checkpoint.load(self.results).model]


@pytest.fixture
def make_run(start, mnist, tmp_path):
    """Return a function that starts a run, its clients in the order that is given."""
    count = iter(range(100))

    def make_run(script: str, *cids: int, epochs: int = 3, seed: int | None = 7) -> Run:
        run = Run(start, script, mnist, tmp_path / f"results-{next(count)}", epochs, seed)
        for cid in cids:
            run.start_client(cid)
            run.server.wait_for(f"client {cid} on")
        return run

    return make_run


@pytest.mark.slow
@pytest.mark.parametrize("script", ["client_pytorch.py", "client_tf.py"])
def test_the_same_seed_gives_the_same_model_whatever_is_killed(make_run, script):
    first = make_run(script, 0, 1, epochs=25).model()
    reverse = make_run(script, 1, 0, epochs=25)
    assert reverse.model() == first
    assert json.loads((reverse.results / "run.json").read_text())["seed"] == 7

    resumed = make_run(script, 0, 1, epochs=25)
    resumed.server.wait_for("round 1:")
    time.sleep(0.5)  # in mid-fit
    resumed.resume()
    assert resumed.model() == first
    assert "going on after round" in resumed.server.output

    restarted = make_run(script, 1, 0, epochs=25)
    restarted.server.wait_for("round 1:")
    time.sleep(0.5)
    restarted.clients[1].popen.kill()
    restarted.clients[1].popen.wait()
    restarted.start_client(1)
    assert restarted.model() == first
    assert restarted.server.output.count("2 results and 0 failures") == 3


def test_a_run_without_a_seed_can_be_had_again(make_run):
    first = make_run("client_pytorch.py", 0, 1, seed=None)
    model = first.model()
    kept = json.loads((first.results / "run.json").read_text())
    assert make_run("client_pytorch.py", 0, 1, seed=kept["seed"]).model() == model


@pytest.mark.parametrize(
    ("framework", "dataset"),
    [
        ("pytorch", "mnist"), ("pytorch", "cifar10"), ("tf", "mnist"),
        pytest.param("tf", "cifar10", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_fit_depends_on_its_seed_and_not_on_the_fits_before(start, framework, dataset):
    code = (
        "import sys, zlib, numpy as np\n"
        f"import client_{framework} as client\n"
        "from federation.data.hub import SOURCES\n"
        "from federation.data.partition_file import Examples\n"
        f"dataset = {dataset!r}\n"
        "random = np.random.default_rng(0)\n"
        "images = random.integers(0, 256, size=(64, *SOURCES[dataset].image_shape), dtype=np.uint8)\n"
        "examples = Examples(images, random.integers(0, 10, size=64))\n"
        f"{'client.set_threads' if framework == 'tf' else 'client.torch.set_num_threads'}(1)\n"
        "flower_client = client.FlowerClient(dataset, examples, examples)\n"
        "initial = [array.copy() for array in flower_client.get_parameters({'seed': 5})]\n"
        "for seed in map(int, sys.argv[1:]):\n"
        "    config = {'epochs': 1, 'batch_size': 16, 'seed': seed}\n"
        "    arrays, *_ = flower_client.fit([array.copy() for array in initial], config)\n"
        "    print('fit', seed, zlib.crc32(b''.join(array.tobytes() for array in arrays)))\n"
    )
    several, alone = start("-c", code, 1, 2, 1), start("-c", code, 2)
    assert (several.exit_code(), alone.exit_code()) == (0, 0), several.output + alone.output
    one, two, one_again = (line for line in several.own_lines if line.startswith("fit "))
    assert one == one_again and one.split()[-1] != two.split()[-1]
    assert two in alone.own_lines
