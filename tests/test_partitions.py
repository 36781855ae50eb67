"""Partitions: the right images, decoded once, kept, repaired, downloaded, or a clear refusal."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from federation import partitions

import datasets
import numpy as np
import pytest
from conftest import PY38_TF, copy_sample, needs_py38_tf
from flwr_datasets import FederatedDataset
from PIL import Image
from processes import ROOT

PREPARE = "-m", "federation.partitions"


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A data folder with the MNIST sample and nothing made from it yet."""
    return copy_sample(tmp_path / "data")


def original_digits(split: str) -> list[tuple[bytes, int]]:
    """The images of the sample, as bytes, with their labels, read without the code under test."""
    rows = datasets.Dataset.from_parquet(str(ROOT / f"sample_data/mnist/{split}-00000-of-00001.parquet"))
    rows = rows.cast_column("image", datasets.Image(decode=False))
    return [(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).tobytes(), int(row["label"])) for row in rows]


def as_pairs(examples: partitions.Examples) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels)]


def test_all_partitions_together_are_the_data_set_each_image_once(data_dir):
    num_clients = 7  # does not divide 4,500
    partitions.prepare("mnist", range(num_clients), num_clients, data_dir)
    everything = []
    for cid in range(num_clients):
        train_set, validation_set = partitions.load_partition("mnist", cid, num_clients, data_dir)
        size = len(train_set.labels) + len(validation_set.labels)
        assert len(validation_set.labels) == size // 10
        assert train_set.images.dtype == np.uint8 and train_set.images.shape[1:] == (28, 28, 1)
        assert train_set.labels.dtype == np.int64
        everything += as_pairs(train_set) + as_pairs(validation_set)
    assert sorted(everything) == sorted(original_digits("train"))


def test_partitions_are_those_of_federated_dataset(data_dir):
    partitions.prepare("mnist", [3], 50, data_dir)
    with np.load(data_dir / "mnist/50/3.npz") as ours:
        files = {"train": str(data_dir / "mnist/train-*.parquet")}
        theirs = FederatedDataset(dataset="parquet", data_files=files, partitioners={"train": 50}).load_partition(3)
        assert ours["labels"].tolist() == list(theirs["label"])
        assert all((image[:, :, 0] == np.asarray(row["image"])).all() for image, row in zip(ours["images"], theirs))


@needs_py38_tf
def test_partition_7_of_50_is_the_same_from_the_package_set_of_a_jetson(data_dir, tmp_path, start):
    partitions.prepare("mnist", [7], 50, data_dir)
    other_dir = tmp_path / "other"
    (other_dir / "mnist").mkdir(parents=True)
    shutil.copy(data_dir / "mnist/train-00000-of-00001.parquet", other_dir / "mnist")
    jetson = start(*PREPARE, "--mnist", "--cid", 7, "--data_dir", other_dir, python=PY38_TF)
    assert jetson.exit_code() == 0, jetson.output
    with np.load(data_dir / "mnist/50/7.npz") as ours, np.load(other_dir / "mnist/50/7.npz") as theirs:
        for name in ("images", "labels"):
            assert ours[name].dtype == theirs[name].dtype
            assert hashlib.sha256(ours[name].tobytes()).digest() == hashlib.sha256(theirs[name].tobytes()).digest()


def test_test_split(data_dir):
    assert as_pairs(partitions.load_test_split("mnist", data_dir)) == original_digits("test")


def test_colour_images(cifar10):
    train_set, validation_set = partitions.load_partition("cifar10", 1, 4, cifar10)
    assert train_set.images.shape == (90, 32, 32, 3) and validation_set.images.shape == (10, 32, 32, 3)


def test_one_command_prepares_several_partitions(data_dir, start):
    process = start(*PREPARE, "--mnist", "--cid", 0, 2, "--num_clients", 5, "--test", "--data_dir", data_dir)
    assert process.exit_code() == 0, process.output
    made = {str(path.relative_to(data_dir)) for path in data_dir.rglob("*.npz")}
    assert made == {"mnist/5/0.npz", "mnist/5/2.npz", "mnist/test.npz"}


def test_a_prepared_partition_needs_no_data_set_and_no_datasets_package(data_dir, tmp_path, start):
    partitions.prepare("mnist", [7], 50, data_dir)
    device = tmp_path / "device"
    (device / "mnist/50").mkdir(parents=True)
    shutil.copy(data_dir / "mnist/50/7.npz", device / "mnist/50")
    code = (
        "import sys; from pathlib import Path; from federation import partitions\n"
        f"partitions.load_partition('mnist', 7, 50, Path({str(device)!r}))\n"
        "print('loaded', [name for name in ('datasets', 'pandas', 'pyarrow', 'PIL') if name in sys.modules])"
    )
    process = start("-c", code)
    assert process.exit_code() == 0
    assert process.output == "loaded []\n"


def test_making_a_partition_leaves_no_packages_in_the_process(data_dir, start):
    code = (
        "import sys; from pathlib import Path; from federation import partitions\n"
        f"train_set, _ = partitions.load_partition('mnist', 0, 50, Path({str(data_dir)!r}))\n"
        "print('loaded', len(train_set.labels), [name for name in ('datasets', 'pandas') if name in sys.modules])"
    )
    process = start("-c", code)
    assert process.exit_code() == 0
    assert "loaded 81 []" in process.output


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "other arrays", "empty"])
def test_a_damaged_partition_is_made_again(data_dir, damage, capfd):
    before = partitions.load_partition("mnist", 7, 50, data_dir)
    path = data_dir / "mnist/50/7.npz"
    content = bytearray(path.read_bytes())
    if damage == "other arrays":
        np.savez(path, images=np.zeros((5, 32, 32, 3), np.uint8), labels=np.zeros(5, np.int64))
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"truncated": content[:1000], "flipped bit": content, "empty": b""}[damage])
    after = partitions.load_partition("mnist", 7, 50, data_dir)
    assert str(path) in capfd.readouterr().err
    assert as_pairs(after[0]) == as_pairs(before[0])


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "other columns"])
def test_a_damaged_data_set_is_named(data_dir, start, damage):
    path = data_dir / "mnist/train-00000-of-00001.parquet"
    content = path.read_bytes()
    if damage == "other columns":
        datasets.Dataset.from_dict({"picture": list(range(200))}).to_parquet(path)
    else:
        half = len(content) // 2
        path.write_bytes(content[:half] + (b"" if damage == "truncated" else bytes(50_000) + content[half + 50_000 :]))
    process = start(*PREPARE, "--mnist", "--cid", *range(50), "--data_dir", data_dir)
    assert process.exit_code() == 1
    assert str(path) in process.output and "Traceback" not in process.output
    assert process.output.count("\n") <= 52


def test_more_partitions_than_images(data_dir, start):
    process = start(*PREPARE, "--mnist", "--cid", 4999, "--num_clients", 5000, "--data_dir", data_dir)
    assert process.exit_code() == 1
    assert "Traceback" not in process.output and "4500 images are too few for 5000 partitions" in process.output


@pytest.mark.parametrize("arguments", [[], ["--cid", "50"], ["--cid", "-1"], ["--cid", "0", "--num_clients", "0"]])
def test_wrong_arguments(start, arguments):
    process = start(*PREPARE, *arguments)
    assert process.exit_code() == 2
    assert process.output.count("\n") == 1


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub's interface as its client uses to download a data set."""

    FILES = {f"mnist/{name}": ROOT / "sample_data/mnist" / name for name in (
        "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"
    )}  # fmt: skip

    def do_GET(self):
        if self.path.startswith("/api/datasets/ylecun/mnist"):
            siblings = [{"rfilename": name} for name in ("README.md", *self.FILES)]
            body = {"id": "ylecun/mnist", "sha": "0" * 40, "siblings": siblings, "private": False, "tags": []}
            self.answer(json.dumps(body).encode(), "application/json")
        else:
            name = self.path.partition("/datasets/ylecun/mnist/resolve/main/")[2]
            self.answer(self.FILES[name].read_bytes(), "application/octet-stream")

    do_HEAD = do_GET

    def answer(self, body: bytes, content_type: str) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def endpoint(server) -> dict[str, str]:
    return {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HUB_DISABLE_XET": "1"}


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_the_data_set_is_downloaded_from_the_hub_once(tmp_path, start, hub, python):
    arguments = (*PREPARE, "--mnist", "--num_clients", 3, "--data_dir", tmp_path / "data")
    first = [start(*arguments, "--cid", cid, env=endpoint(hub), python=python) for cid in (0, 1)]  # at the same time
    for process in first:
        assert process.exit_code() == 0, process.output
    assert sum(request.startswith("GET /datasets") for request in hub.requests) == 2
    hub.requests.clear()
    assert start(*arguments, "--cid", 2, "--test", env=endpoint(hub), python=python).exit_code() == 0
    assert hub.requests == []
    names = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert names - {"mnist/.lock"} == {
        "mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet",
        "mnist/3/0.npz", "mnist/3/1.npz", "mnist/3/2.npz", "mnist/test.npz",
    }  # fmt: skip
    everything = [pair for cid in range(3) for part in partitions.load_partition("mnist", cid, 3, tmp_path / "data")
                  for pair in as_pairs(part)]  # fmt: skip
    assert sorted(everything) == sorted(original_digits("train"))


@pytest.mark.parametrize("kind", ["refuses connections", "never answers", "answers nonsense"])
def test_without_network_and_data_a_client_ends_with_advice(tmp_path, start, hub, kind):
    if kind == "refuses connections":
        hub.shutdown()
        hub.server_close()
    elif kind == "never answers":
        hub.RequestHandlerClass = lambda *_: time.sleep(60)
    else:
        hub.RequestHandlerClass = type("Nonsense", (Hub,), {"do_GET": lambda self: self.answer(b"hello", "text/html")})
    folder = tmp_path / "empty"
    process = start("-m", "federation.partitions", "--cid", 0, "--data_dir", folder, env=endpoint(hub))
    assert process.exit_code() == 1
    assert str(folder / "cifar10") in process.output and "train-*.parquet" in process.output
    assert "Traceback" not in process.output and process.output.count("\n") <= 3


def test_a_folder_that_cannot_be_written(tmp_path, start):
    (tmp_path / "file").write_text("not a folder")
    process = start(*PREPARE, "--mnist", "--cid", 0, "--data_dir", tmp_path / "file")
    assert process.exit_code() == 1
    assert "Traceback" not in process.output and str(tmp_path / "file") in process.output
