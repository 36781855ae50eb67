"""Partitions: the right images, decoded once, kept, repaired, downloaded, or a clear refusal."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from federation.data import partitions
from federation.data.partitions import Partition, load_partition

import datasets
import flwr_datasets.partitioner
import numpy as np
import pytest
from conftest import PY38_TF, copy_sample, needs_py38_tf
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import DirichletPartitioner, ExponentialPartitioner
from PIL import Image
from processes import DEADLINE, PROMPTLY, ROOT

PREPARE = "-m", "federation.data"


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
        train_set, validation_set = load_partition(Partition("mnist", cid, num_clients, data_dir))
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


def test_uneven_partitions_are_those_of_the_newest_dirichlet_partitioner(data_dir):
    partitions.prepare("mnist", [0, 7, 49], 50, data_dir, 0.3)
    files = {"train": str(data_dir / "mnist/train-*.parquet")}
    partitioner = DirichletPartitioner(50, "label", 0.3, min_partition_size=2, self_balancing=False)
    data_set = FederatedDataset(dataset="parquet", data_files=files, partitioners={"train": partitioner})
    for cid in (0, 7, 49):
        with np.load(data_dir / f"mnist/50-alpha0.3/{cid}.npz") as ours:
            theirs = data_set.load_partition(cid)
            assert ours["labels"].tolist() == list(theirs["label"])
            assert all((image[:, :, 0] == np.asarray(row["image"])).all() for image, row in zip(ours["images"], theirs))


CUTS = {  # the beginning of SHA-256 of what `cut` gives for all clients, from the sample
    (None, 50): "c5e540fbc315", (0.3, 50): "11b616f96828", (0.1, 50): "909f7f5e2f0c", (0.05, 5): "b301046ba3b3",
    (0.02, 3): "6c1b86727ca6", (0.01, 2): "c2d14bb4150a", (1.0, 10): "673bb4387012", (1e6, 10): "9aca293af3b9",
}  # fmt: skip
CUT_ALL = """
import hashlib, json, sys
from pathlib import Path
from federation.data import cutting
rows, labels = cutting.open_files([Path("sample_data/mnist/train-00000-of-00001.parquet")])
for alpha, num_clients in json.loads(sys.argv[1]):
    cut = cutting.cut(labels, range(num_clients), num_clients, alpha)
    digest = hashlib.sha256(b"".join(numbers.astype("<i8").tobytes() + b"|" for numbers in cut))
    print("cut", digest.hexdigest()[:12], min(map(len, cut)), sum(map(len, cut)))
"""


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_cuts_are_the_same_on_all_package_sets_and_give_everybody_two_images(start, python):
    process = start("-c", CUT_ALL, json.dumps(list(CUTS)), python=python)
    assert process.exit_code() == 0, process.output
    found = [line.split()[1:] for line in process.output.splitlines() if line.startswith("cut ")]
    assert [digest for digest, _, _ in found] == list(CUTS.values())
    assert all(int(least) >= 2 and int(total) == 4500 for _, least, total in found)


@pytest.mark.parametrize("script", ["-m federation.data", "client_pytorch.py"])
def test_so_uneven_that_somebody_would_have_nothing(data_dir, start, script):
    process = start(*script.split(), "--mnist", "--cid", 7, "--alpha", 0.01, "--data_dir", data_dir)
    assert process.exit_code() == 1
    assert "cannot cut 4500 images into 50 partitions" in process.output and "Traceback" not in process.output
    assert "Take a larger --alpha than 0.01, or fewer partitions (--num_clients)." in process.output
    assert not list(data_dir.rglob("*.npz"))


def test_how_uneven_it_is_cut_is_in_the_name_of_the_folder(data_dir):
    assert Partition("mnist", 7, 50, data_dir).path == data_dir / "mnist/50/7.npz"
    for alpha, name in ((0.3, "50-alpha0.3"), (3e-1, "50-alpha0.3"), (1, "50-alpha1"), (1e6, "50-alpha1000000")):
        assert Partition("mnist", 7, 50, data_dir, alpha).path == data_dir / f"mnist/{name}/7.npz"
    alphas = 0.1234567, 0.12345671, np.nextafter(0.3, 1), 0.3, 0.01, 1e6
    assert len({Partition("mnist", 7, 50, data_dir, alpha).path for alpha in alphas}) == len(alphas)


def test_uneven_partitions_are_made_when_they_are_loaded(data_dir):
    everything, most = [], []
    for cid in range(5):
        train_set, validation_set = load_partition(Partition("mnist", cid, 5, data_dir, 0.3))
        everything += as_pairs(train_set) + as_pairs(validation_set)
        most.append(np.bincount(train_set.labels).max() / len(train_set.labels))
    assert sorted(everything) == sorted(original_digits("train"))
    assert max(most) > 0.3  # a tenth would be even
    assert not (data_dir / "mnist/5").exists()


@pytest.mark.parametrize("flags", [("--num_clients", 2, "--alpha", 0.3), ("--num_clients", 50), ("--alpha", 0.1)])
@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_a_picture_of_who_has_what(data_dir, start, python, flags):
    process = start(*PREPARE, "--mnist", "--show", *flags, "--data_dir", data_dir, python=python)
    assert process.exit_code() == 0, process.output
    folder = {"--alpha": "50-alpha0.1", "--num_clients": "2-alpha0.3" if 2 in flags else "50"}[flags[0]]
    path = data_dir / "mnist" / folder / "partitions.png"
    assert process.output == f"{path} shows who has how much of which class\n"
    with Image.open(path) as image:
        image.load()
        assert image.width > (1000 if "--alpha" in flags else 600)  # beside an even cut
        assert len(image.convert("RGB").getcolors(100_000)) > 20
    assert not list(data_dir.rglob("*.npz"))  # no image is decoded


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
    train_set, validation_set = load_partition(Partition("cifar10", 1, 4, cifar10))
    assert train_set.images.shape == (90, 32, 32, 3) and validation_set.images.shape == (10, 32, 32, 3)


def test_one_command_prepares_several_partitions(data_dir, start):
    process = start(*PREPARE, "--mnist", "--cid", 0, 2, "--num_clients", 5, "--test", "--data_dir", data_dir)
    assert process.exit_code() == 0, process.output
    made = {str(path.relative_to(data_dir)) for path in data_dir.rglob("*.npz")}
    assert made == {"mnist/5/0.npz", "mnist/5/2.npz", "mnist/test.npz"}


def test_all_partitions_are_prepared_in_another_process(data_dir, capfd):
    partitions.prepare_all("mnist", 8, data_dir, 0.3)
    made = {str(path.relative_to(data_dir / "mnist")) for path in data_dir.rglob("*.npz")}
    assert made == {f"8-alpha0.3/{cid}.npz" for cid in range(8)}
    *ready, last = capfd.readouterr().out.splitlines()
    assert len(ready) == 5 and all(line.endswith("is ready") for line in ready) and last == "and so are 3 more"


def test_all_partitions_of_nothing(tmp_path, capfd):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train.parquet").touch()  # not one of the Hub's
    with pytest.raises(SystemExit) as end:
        partitions.prepare_all("mnist", 2, tmp_path, None)
    assert end.value.code == 1
    assert "is not named as the Hub names its files" in capfd.readouterr().err


def test_the_end_of_a_process_knows_what_it_was(capsys):
    """A node of Flower's engines does not end; it tells the server."""
    error = partitions.DataError("the folder is empty")
    with pytest.raises(SystemExit) as end:
        partitions.end(error)
    assert end.value.code == 1 and end.value.__cause__ is error
    assert capsys.readouterr().err == "the folder is empty\n"


def test_a_prepared_partition_needs_no_data_set_and_no_datasets_package(data_dir, tmp_path, start):
    partitions.prepare("mnist", [7], 50, data_dir)
    device = tmp_path / "device"
    (device / "mnist/50").mkdir(parents=True)
    shutil.copy(data_dir / "mnist/50/7.npz", device / "mnist/50")
    code = (
        "import sys; from pathlib import Path; from federation import partitions\n"
        f"partitions.load_partition(partitions.Partition('mnist', 7, 50, Path({str(device)!r})))\n"
        "print('loaded', [name for name in ('datasets', 'pandas', 'pyarrow', 'PIL') if name in sys.modules])"
    )
    process = start("-c", code)
    assert process.exit_code() == 0
    assert process.output == "loaded []\n"


def test_making_a_partition_leaves_no_packages_in_the_process(data_dir, start):
    code = (
        "import sys; from pathlib import Path; from federation import partitions\n"
        f"train_set, _ = partitions.load_partition(partitions.Partition('mnist', 0, 50, Path({str(data_dir)!r})))\n"
        "print('loaded', len(train_set.labels), [name for name in ('datasets', 'pandas') if name in sys.modules])"
    )
    process = start("-c", code)
    assert process.exit_code() == 0
    assert "loaded 81 []" in process.output


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "no directory", "empty"])
def test_a_damaged_partition_is_made_again(data_dir, damage, capfd):
    before = load_partition(Partition("mnist", 7, 50, data_dir))
    path = data_dir / "mnist/50/7.npz"
    content = path.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    kinds = {
        "truncated": content[:1000],
        "flipped bit": flipped,
        "no directory": content[:-40] + bytes(40),
        "empty": b"",
    }
    path.write_bytes(kinds[damage])
    after = load_partition(Partition("mnist", 7, 50, data_dir))
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


def write_rows(path: Path, images: list[bytes | None], labels: list[object]) -> None:
    """Write a data set in the Hub's layout, from image files."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [image and {"bytes": image, "path": None} for image in images], "label": labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


DIGIT = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
A_PNG = png(Image.fromarray(DIGIT))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ([A_PNG] * 20, [*range(1, 11)] * 2, "its labels go from 1 to 10, and have to be from 0 to 9"),
        ([A_PNG] * 20, [-1] * 20, "its labels go from -1 to -1"),
        ([A_PNG] * 20, [None] * 20, "TypeError"),
        ([None] * 20, [1] * 20, "TypeError"),
        ([png(Image.new("L", (30, 28)))] * 20, [1] * 20, "an image is 30 x 28 pixels, not 28 x 28"),
        ([b"no image"] * 20, [1] * 20, "cannot identify image file"),
    ],
)
def test_a_data_set_that_is_of_no_use_for_the_model_is_named(tmp_path, start, images, labels, words):
    path = tmp_path / "mnist/train-00000-of-00001.parquet"
    write_rows(path, images, labels)
    process = start(*PREPARE, "--mnist", "--cid", 0, "--num_clients", 1, "--data_dir", tmp_path)
    assert process.exit_code() == 1
    assert f"Cannot use {path}" in process.output and words in process.output
    assert process.output.count("\n") == 1
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PY38_TF, marks=needs_py38_tf)])
def test_images_of_all_kinds_give_the_pixels_that_they_show(tmp_path, start, python):
    """The variants of one digit that PNG has: all give the same pixels, in black and white for the one with 1 bit."""
    grey, black_and_white = Image.fromarray(DIGIT), Image.fromarray(DIGIT).convert("1", dither=Image.Dither.NONE)
    kinds = [
        grey,
        grey.convert("P"),  # a palette
        grey.convert("RGB"),
        grey.convert("RGBA"),
        grey.convert("LA"),
        Image.fromarray(DIGIT.astype(np.uint16) * 257),  # 16 bits
        black_and_white,
    ]
    write_rows(tmp_path / "mnist/train-00000-of-00001.parquet", list(map(png, kinds)), list(range(len(kinds))))
    process = start(*PREPARE, "--mnist", "--cid", 0, "--num_clients", 1, "--data_dir", tmp_path, python=python)
    assert process.exit_code() == 0, process.output
    with np.load(tmp_path / "mnist/1/0.npz") as arrays:
        pixels = {int(label): image[:, :, 0] for label, image in zip(arrays["labels"], arrays["images"])}
    for label, image in pixels.items():
        expected = np.where(DIGIT >= 128, 255, 0) if kinds[label] is black_and_white else DIGIT
        assert np.array_equal(image, expected), kinds[label].mode


@pytest.mark.parametrize("folder", ["fl [1]", "a*b?", "{1,2}", "100% #1; a::b", "file:data", "~", "Bilder für Ä"])
def test_a_folder_whose_name_looks_like_a_pattern_or_an_address(data_dir, tmp_path, folder):
    shutil.copytree(data_dir, tmp_path / folder)
    for place in (data_dir, tmp_path / folder):
        partitions.prepare("mnist", [7], 50, place, test=True)
    for name in ("50/7.npz", "test.npz"):
        assert (data_dir / "mnist" / name).read_bytes() == (tmp_path / folder / "mnist" / name).read_bytes()


def split_into_shards(data_dir: Path, number: int) -> list[Path]:
    """Cut the training images of a data folder into several files, as the Hub has large data sets."""
    whole = data_dir / "mnist/train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(whole), keep_in_memory=True)
    paths = [whole.with_name(f"train-{i:05}-of-{number:05}.parquet") for i in range(number)]
    for i, path in enumerate(paths):
        rows.shard(number, i, contiguous=True).to_parquet(path)
    whole.unlink()
    return paths


def test_a_data_set_in_several_files_gives_the_same_partitions(data_dir, tmp_path):
    before = load_partition(Partition("mnist", 7, 50, data_dir))
    split_into_shards(data_dir, 3)
    (data_dir / "mnist/50/7.npz").unlink()
    after = load_partition(Partition("mnist", 7, 50, data_dir))
    assert [as_pairs(part) for part in before] == [as_pairs(part) for part in after]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_data_set_of_which_a_file_is_missing_is_not_cut(data_dir, start, lost):
    paths = split_into_shards(data_dir, 3)
    paths[lost].unlink()
    process = start(*PREPARE, "--mnist", "--cid", 0, "--data_dir", data_dir)
    assert process.exit_code() == 1
    assert f"lacks {paths[lost].name}" in process.output and process.output.count("\n") == 2
    assert not list(data_dir.rglob("*.npz"))


@pytest.mark.parametrize("kind", ["part", "link"])
def test_a_prepared_partition_needs_no_whole_data_set(data_dir, kind):
    before = load_partition(Partition("mnist", 7, 50, data_dir))
    if kind == "part":
        split_into_shards(data_dir, 3)[0].unlink()
    else:
        whole = data_dir / "mnist/train-00000-of-00001.parquet"
        whole.unlink()
        whole.symlink_to(data_dir / "drive/train.parquet")
    after = load_partition(Partition("mnist", 7, 50, data_dir))
    assert [as_pairs(part) for part in before] == [as_pairs(part) for part in after]


def test_a_partition_is_cut_again_when_the_data_set_is_another(data_dir, capfd):
    before = load_partition(Partition("mnist", 7, 50, data_dir))
    write_rows(data_dir / "mnist/train-00000-of-00001.parquet", [A_PNG] * 200, [3] * 200)
    after = load_partition(Partition("mnist", 7, 50, data_dir))
    assert "was cut from other files" in capfd.readouterr().err
    assert as_pairs(after[0]) != as_pairs(before[0])
    assert as_pairs(after[0]) + as_pairs(after[1]) == [(DIGIT.tobytes(), 3)] * 4


def test_own_images_are_used_and_not_replaced(data_dir, start):
    """As in the README, with NumPy's default integer on Windows; beside it is a data set that could be cut."""
    path = data_dir / "mnist/50/7.npz"
    path.parent.mkdir()
    np.savez(path, images=np.full((20, 28, 28), 9, np.uint8), labels=np.arange(20, dtype=np.int32) % 10)
    content = path.read_bytes()
    train_set, validation_set = load_partition(Partition("mnist", 7, 50, data_dir))
    assert len(train_set.labels) == 18 and len(validation_set.labels) == 2
    assert train_set.images.shape == (18, 28, 28, 1) and train_set.labels.dtype == np.int64
    process = start(*PREPARE, "--mnist", "--cid", 7, "--data_dir", data_dir)
    assert process.exit_code() == 0, process.output
    assert path.read_bytes() == content


@pytest.mark.parametrize("script", ["-m federation.data", "client_pytorch.py"])
@pytest.mark.parametrize("fault", ["labels from 1 to 10", "half a file"])
def test_own_images_that_are_of_no_use_are_named_and_not_replaced(data_dir, start, script, fault):
    path = data_dir / "mnist/50/7.npz"
    path.parent.mkdir()
    np.savez(path, images=np.zeros((20, 28, 28, 1), np.uint8), labels=np.arange(20) % 10 + 1)
    if fault == "half a file":
        path.write_bytes(path.read_bytes()[:5000])
    content = path.read_bytes()
    process = start(*script.split(), "--mnist", "--cid", 7, "--data_dir", data_dir)
    assert process.exit_code() == 2
    (line,) = process.own_lines
    assert str(path) in line and {"labels from 1 to 10": "1 to 10", "half a file": "part of one"}[fault] in line
    assert path.read_bytes() == content


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGILL])
def test_a_process_that_is_killed_while_it_makes_a_partition(tmp_path, start, hub, number):
    """By the system for lack of memory, or for an instruction that the processor does not know."""
    hub.RequestHandlerClass = lambda *_: time.sleep(60)
    code = (
        "from pathlib import Path; from federation import partitions\n"
        f"partitions.load_partition(partitions.Partition('mnist', 7, 50, Path({str(tmp_path)!r})))"
    )
    process = start("-c", code, env=endpoint(hub))
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    deadline = time.monotonic() + DEADLINE
    while not (tmp_path / "mnist/.lock").exists():  # the child's work has begun
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int(children.read_text()), number)
    assert process.exit_code(PROMPTLY) == 1
    assert f"ended by {number.name}" in process.output and "prepare the partition on another" in process.output
    assert "Traceback" not in process.output and process.output.count("\n") == 2


@pytest.mark.parametrize(
    "partitioner",
    [
        lambda num_partitions: DirichletPartitioner(num_partitions, partition_by="label", alpha=0.01),
        lambda num_partitions: ExponentialPartitioner(num_partitions),  # the first partitions are empty
    ],
)
def test_a_partitioner_that_finds_no_solution(data_dir, monkeypatch, partitioner):
    """Somebody's change in the code that finds none, or partitions that are too small."""
    monkeypatch.setattr(flwr_datasets.partitioner, "IidPartitioner", partitioner)
    with pytest.raises(partitions.DataError, match="Partitioner cannot cut 4500 images into 50 partitions: .*\n.*"):
        partitions.prepare("mnist", [0], 50, data_dir)
    assert not list(data_dir.rglob("*.npz"))


def test_more_partitions_than_images(data_dir, start):
    process = start(*PREPARE, "--mnist", "--cid", 4999, "--num_clients", 5000, "--data_dir", data_dir)
    assert process.exit_code() == 1
    assert "Traceback" not in process.output and "4500 images are too few for 5000 partitions" in process.output


@pytest.mark.parametrize(
    "arguments",
    [
        "", "--cid 50", "--cid -1", "--cid 0 --num_clients 0", "--cid 0 --alpha 0", "--show --alpha nan",
        "--from_folder photos", "--from_folder photos --cid 0 1", "--from_folder photos --cid 0 --test",
        "--from_folder photos --cid 0 --show", "--from_folder photos --cid 0 --alpha 0.3", "--from_folder . --cid 50",
    ],
)  # fmt: skip
def test_wrong_arguments(start, arguments):
    process = start(*PREPARE, *arguments.split())
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
    everything = [pair for cid in range(3) for part in load_partition(Partition("mnist", cid, 3, tmp_path / "data"))
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
    process = start("-m", "federation.data", "--cid", 0, "--data_dir", folder, env=endpoint(hub))
    assert process.exit_code() == 1
    assert str(folder / "cifar10") in process.output and "train-*.parquet" in process.output
    assert "Traceback" not in process.output and process.output.count("\n") <= 3


def test_a_folder_that_cannot_be_written(tmp_path, start):
    (tmp_path / "file").write_text("not a folder")
    process = start(*PREPARE, "--mnist", "--cid", 0, "--data_dir", tmp_path / "file")
    assert process.exit_code() == 1
    assert "Traceback" not in process.output and str(tmp_path / "file") in process.output
