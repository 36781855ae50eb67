"""Partitions: the right images, decoded once and kept, the data set found or downloaded, or a clear refusal."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from federation.data import cutting, partitions
from federation.data.hub import DataError
from federation.data.partition_file import Examples
from federation.data.partitions import Partitioning, load_partition

import datasets
import numpy as np
import pytest
from conftest import PY38_TF, copy_sample, needs_py38_tf
from fake_hub import Hub, endpoint, make_hub
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import DirichletPartitioner
from PIL import Image
from processes import DEADLINE, PROMPTLY, ROOT

PREPARE = "-m", "federation.data", "--mnist"
PARQUET = "train-00000-of-00001.parquet"


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A data folder with the MNIST sample and nothing made from it yet."""
    return copy_sample(tmp_path / "data")


def original_digits(split: str) -> list[tuple[bytes, int]]:
    """The images of the sample, as bytes, with their labels, read without the code under test."""
    rows = datasets.Dataset.from_parquet(str(ROOT / f"sample_data/mnist/{split}-00000-of-00001.parquet"))
    rows = rows.cast_column("image", datasets.Image(decode=False))
    return [(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))).tobytes(), int(row["label"])) for row in rows]


def as_pairs(examples: Examples) -> list[tuple[bytes, int]]:
    return [(image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels)]


@pytest.mark.parametrize(("alpha", "num_clients"), [(None, 7), (0.3, 5)])  # 7 does not divide 4,500
def test_all_partitions_together_are_the_data_set_each_image_once(data_dir, alpha, num_clients, capsys):
    partitioning = Partitioning("mnist", data_dir, num_clients, alpha)
    partitions.prepare_all(partitioning)
    everything = []
    for cid in range(num_clients):
        train_set, validation_set = load_partition(partitioning, cid)
        size = len(train_set.labels) + len(validation_set.labels)
        assert len(validation_set.labels) == size // 10
        assert train_set.images.dtype == np.uint8 and train_set.images.shape[1:] == (28, 28, 1)
        assert train_set.labels.dtype == np.int64
        everything += as_pairs(train_set) + as_pairs(validation_set)
    assert sorted(everything) == sorted(original_digits("train"))
    assert "is ready" not in capsys.readouterr().out  # none was made twice


@pytest.mark.parametrize(("alpha", "folder"), [(None, "50"), (0.3, "50-alpha0.3")])
def test_partitions_are_those_of_federated_dataset(data_dir, alpha, folder):
    cutting.prepare(Partitioning("mnist", data_dir, 50, alpha), [0, 7, 49])
    partitioner = DirichletPartitioner(50, "label", alpha, min_partition_size=2) if alpha else 50
    files = {"train": str(data_dir / "mnist/train-*.parquet")}
    data_set = FederatedDataset(dataset="parquet", data_files=files, partitioners={"train": partitioner})
    for cid in (0, 7, 49):
        with np.load(data_dir / f"mnist/{folder}/{cid}.npz") as ours:
            theirs = data_set.load_partition(cid)
            assert ours["labels"].tolist() == list(theirs["label"])
            assert all((image[:, :, 0] == np.asarray(row["image"])).all() for image, row in zip(ours["images"], theirs))


ROWS = {  # the beginning of SHA-256 of the rows of all clients, from the sample
    (None, 50): "c5e540fbc315", (0.3, 50): "11b616f96828", (0.1, 50): "909f7f5e2f0c", (0.05, 5): "b301046ba3b3",
    (0.02, 3): "6c1b86727ca6", (0.01, 2): "c2d14bb4150a", (1.0, 10): "673bb4387012", (1e6, 10): "9aca293af3b9",
}  # fmt: skip
ALL_ROWS = """
import hashlib, json, sys
from pathlib import Path
from federation.data import cutting
from federation.data.partitions import Partitioning
_, labels = cutting.open_split(Partitioning("mnist", Path("sample_data")), "train")
for alpha, num_clients in json.loads(sys.argv[1]):
    rows = cutting.rows_of(labels, Partitioning("mnist", Path("sample_data"), num_clients, alpha), range(num_clients))
    digest = hashlib.sha256(b"".join(numbers.astype("<i8").tobytes() + b"|" for numbers in rows))
    print("rows", digest.hexdigest()[:12], min(map(len, rows)), sum(map(len, rows)))
"""


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_partitions_are_the_same_on_all_package_sets_and_nobody_has_less_than_two_images(start, python):
    process = start("-c", ALL_ROWS, json.dumps(list(ROWS)), python=python)
    assert process.exit_code() == 0, process.output
    found = [line.split()[1:] for line in process.output.splitlines() if line.startswith("rows ")]
    assert [digest for digest, _, _ in found] == list(ROWS.values())
    assert all(int(least) >= 2 and int(total) == 4500 for _, least, total in found)


def test_partitions_that_would_be_too_small(data_dir, start):
    process = start("client_pytorch.py", "--mnist", "--cid", 7, "--alpha", 0.01, "--data_dir", data_dir)
    assert process.exit_code() == 1
    reason, last = process.own_lines
    assert "Use a larger --alpha than 0.01, or fewer partitions (--num_clients)." in reason
    assert last.startswith("Cannot prepare the data: the reason is above")
    with pytest.raises(DataError, match="Cannot partition 9 images among 5 clients: each needs at least 2. Use fewer"):
        cutting.rows_of(np.zeros(9, np.int64), Partitioning("mnist", data_dir, 5), [0])
    assert not list(data_dir.rglob("*.npz"))


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_the_files_that_are_ready_are_all_that_stdout_has(tmp_path, hub, python):
    """Downloaded and made, then found; so another program can read it. Also in a notebook's terminal."""
    environment = {**os.environ, **endpoint(hub.server_port), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}

    def lines_of(*arguments: object) -> tuple[list[str], str]:
        command = [python, *PREPARE, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr

    flags = "--cid", 0, 2, "--num_clients", 5, "--test", "--data_dir", tmp_path
    expected = [f"{tmp_path}/mnist/{name}" for name in ("5/0.npz", "5/2.npz", "test.npz")]
    ready, said = lines_of(*flags)
    assert ready == expected and "downloading ylecun/mnist from the Hugging Face Hub" in said
    before = [Path(name).stat().st_mtime_ns for name in expected]
    assert lines_of(*flags) == (expected, "")
    assert before == [Path(name).stat().st_mtime_ns for name in expected]
    ready, _ = lines_of("--show", "--num_clients", 10, "--alpha", 0.3, "--data_dir", tmp_path)
    assert ready == [f"{tmp_path}/mnist/10-alpha0.3/partitions.png"]
    with Image.open(ready[0]) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(100_000)) > 10  # one for each class


def test_test_split(data_dir):
    assert as_pairs(partitions.load_test_split("mnist", data_dir)) == original_digits("test")


def test_a_partition_is_made_once_and_leaves_no_packages_in_the_process(data_dir, start):
    code = (
        "import sys; from pathlib import Path; from federation.data.partitions import Partitioning, load_partition\n"
        f"train_set, _ = load_partition(Partitioning('mnist', Path({str(data_dir)!r})), 0)\n"
        "print(len(train_set.labels), *[name for name in ('datasets', 'pandas', 'PIL') if name in sys.modules])"
    )
    path = data_dir / "mnist/50/0.npz"
    for expected in (f"{path} is ready\n81\n", "81\n"):
        process = start("-c", code)
        assert process.exit_code() == 0 and process.output == expected
        (data_dir / "mnist" / PARQUET).unlink(missing_ok=True)  # the second time, it does without


def test_a_file_that_cannot_be_used_is_refused_and_kept(data_dir, start):
    path = data_dir / "mnist/50/7.npz"
    path.parent.mkdir()
    np.savez(path, images=np.zeros((20, 28, 28, 1), np.uint8), labels=np.arange(20) % 10 + 1)
    content = path.read_bytes()
    process = start("client_pytorch.py", "--mnist", "--cid", 7, "--data_dir", data_dir)
    assert process.exit_code() == 2
    (line,) = process.own_lines
    assert f"{path}: its labels go from 1 to 10" in line and "Remove it to recreate it" in line
    assert path.read_bytes() == content


def write_rows(path: Path, width: int, labels: list[object]) -> None:
    """Write a data set in the Hub's layout, of black images."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [Image.new("L", (width, 28))] * len(labels), "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


BAD_DATA_SETS = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:9000]), "Parquet"),
    "other columns": (lambda path: datasets.Dataset.from_dict({"picture": [1, 2]}).to_parquet(path), "label"),
    "labels from 1 to 10": (lambda path: write_rows(path, 28, [*range(1, 11)] * 2), "labels go from 1 to 10"),
    "no labels": (lambda path: write_rows(path, 28, [None] * 9), "TypeError"),
    "another size": (lambda path: write_rows(path, 30, [1] * 9), "an image is 30 x 28 pixels, not 28 x 28"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_DATA_SETS.values(), ids=BAD_DATA_SETS.keys())
def test_a_data_set_that_cannot_be_used_is_named(data_dir, spoil, words):
    spoil(data_dir / "mnist" / PARQUET)
    with pytest.raises(DataError, match=f"Cannot use {data_dir}/mnist/train-\\*.parquet: ") as caught:
        cutting.prepare(Partitioning("mnist", data_dir, 1), [0])
    assert words in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert not list(data_dir.rglob("*.npz"))


@pytest.mark.parametrize("folder", ["fl [1] a*b?", "{1,2} 100% #1; a::b", "file:data", "Bilder für Ä"])
def test_a_folder_whose_name_looks_like_a_pattern_or_an_address(data_dir, tmp_path, folder):
    shutil.copytree(data_dir, tmp_path / folder)
    for place in (data_dir, tmp_path / folder):
        cutting.prepare(Partitioning("mnist", place), [7], test=True)
    for name in ("50/7.npz", "test.npz"):
        assert (data_dir / "mnist" / name).read_bytes() == (tmp_path / folder / "mnist" / name).read_bytes()


def test_a_data_set_in_several_files_gives_the_same_partitions(data_dir):
    before = load_partition(Partitioning("mnist", data_dir), 7)
    whole = data_dir / "mnist" / PARQUET
    rows = datasets.Dataset.from_parquet(str(whole), keep_in_memory=True)
    whole.unlink()
    for i in range(3):
        rows.shard(3, i, contiguous=True).to_parquet(whole.with_name(f"train-{i:05}-of-00003.parquet"))
    (data_dir / "mnist/50/7.npz").unlink()
    after = load_partition(Partitioning("mnist", data_dir), 7)
    assert [as_pairs(part) for part in before] == [as_pairs(part) for part in after]


def test_a_process_that_is_killed_while_it_makes_a_partition(tmp_path, start, hub):
    """By the system for lack of memory, or for an instruction that the processor does not know."""
    hub.RequestHandlerClass = lambda *_: time.sleep(60)
    process = start("client_pytorch.py", "--cid", 7, "--data_dir", tmp_path, env=endpoint(hub.server_port))
    deadline = time.monotonic() + DEADLINE
    while not (tmp_path / "cifar10/.lock").exists():  # the child's work has begun
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    os.kill(int(children.read_text()), signal.SIGILL)
    assert process.exit_code(PROMPTLY) == 1
    (line,) = process.own_lines
    assert "ended by SIGILL" in line and "prepare it on another one" in line


def test_a_drive_without_locks(data_dir, monkeypatch):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(DataError, match="Cannot lock .*mnist: No locks available. Use --data_dir with a folder"):
        cutting.prepare(Partitioning("mnist", data_dir), [0])


@pytest.mark.parametrize(
    "arguments",
    [
        "", "--cid 50", "--cid -1", "--cid 0 --num_clients 0", "--cid 0 --alpha 0", "--show --alpha nan",
        "--from_folder photos", "--from_folder photos --cid 0 1", "--from_folder photos --cid 0 --test",
        "--from_folder photos --cid 0 --show", "--from_folder . --cid 50",
    ],
)  # fmt: skip
def test_wrong_arguments(start, arguments):
    process = start(*PREPARE, *arguments.split())
    assert process.exit_code() == 2
    assert process.output.count("\n") == 1


@pytest.fixture
def hub():
    server = make_hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_data_set_is_downloaded_from_the_hub_once(tmp_path, start, hub):
    arguments = (*PREPARE, "--num_clients", 3, "--data_dir", tmp_path)
    first = [start(*arguments, "--cid", cid, env=endpoint(hub.server_port)) for cid in (0, 1)]  # at the same time
    for process in first:
        assert process.exit_code() == 0, process.output
    assert sum(request.startswith("GET /datasets") for request in hub.requests) == 2
    folder = tmp_path / "mnist"
    assert {path.name for path in folder.iterdir()} - {".lock"} == {PARQUET, "test-00000-of-00001.parquet", "3"}
    assert all((tmp_path / name).read_bytes() == content for name, content in Hub.FILES.items())


@pytest.mark.parametrize("kind", ["refuses connections", "never answers", "answers nonsense"])
def test_without_network_and_data_a_client_ends_with_advice(tmp_path, start, hub, kind):
    if kind == "refuses connections":
        hub.shutdown()
        hub.server_close()
    elif kind == "never answers":
        hub.RequestHandlerClass = lambda *_: time.sleep(60)
    else:
        hub.RequestHandlerClass = type("Nonsense", (Hub,), {"do_GET": lambda self: self.answer(b"hello", "text/html")})
    process = start("-m", "federation.data", "--cid", 0, "--data_dir", tmp_path, env=endpoint(hub.server_port))
    assert process.exit_code(40) == 1
    assert process.output.startswith(f"There is no cifar10 in {tmp_path}/cifar10, and it cannot be downloaded")
    assert "train-*.parquet" in process.output and process.output.count("\n") == 1
