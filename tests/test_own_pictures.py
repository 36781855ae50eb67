"""A federation on own pictures: what the command makes, who may take part, what is never lost."""

from __future__ import annotations

from pathlib import Path

from federation.results.tables import read_table

import numpy as np
import pytest
from conftest import FRAMEWORKS, copy_sample
from PIL import Image
from processes import PROMPTLY, federate

MAKE = "-m", "federation.data", "--mnist"


def take_photos(folder: Path, classes: tuple[str, ...] = ("bright", "dark"), number: int = 40) -> Path:
    """Photos of one class are as grey as no other's, of any size and of two kinds."""
    random = np.random.default_rng(len(str(folder)))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(number):
            height, width = random.integers(20, 90, 2)
            grey = {"bright": 170, "dark": 20}.get(name, 100)
            pixels = random.integers(grey, grey + 80, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return folder


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A data folder with the MNIST sample, which could be cut."""
    return copy_sample(tmp_path / "data")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_devices_with_pictures_of_their_own(processes, data_dir, tmp_path, framework):
    for what in (("--cid", 0), ("--cid", 1), ("--test",)):
        photos = take_photos(tmp_path / f"photos-{what[-1]}")
        (photos / "dark/notes.txt").write_text("no picture")
        process = processes.start(*MAKE, "--from_folder", photos, *what, "--data_dir", data_dir)
        assert process.exit_code() == 0, process.output
        assert f"{photos / 'dark/notes.txt'} is skipped: it is no image" in process.output
        assert process.output.endswith(".npz is ready: bright (40), dark (40)\n")
    data = "--mnist", "--data_dir", data_dir
    evaluation = "--evaluate_with", framework, *data
    run = federate(processes, f"client_{framework}.py", ("--rounds", 2, *evaluation), data)
    assert float(run.rounds[-1]["accuracy"]) > 0.9 and float(run.rounds[-1]["central_accuracy"]) > 0.9
    assert {row["examples"] for row in run.client_rows} == {"72"}
    classes = read_table(run.results / "classes.csv")
    assert [(row["label"], row["class"]) for row in classes] == [("0", "bright"), ("1", "dark")] * 2


def test_other_classes_are_refused_and_both_sides_are_told(start, start_server, address, data_dir, tmp_path):
    for cid, classes in enumerate([("bright", "dark"), ("bright", "dim"), ("bright", "dark")]):
        photos = take_photos(tmp_path / f"photos-{cid}", classes, number=2)
        assert start(*MAKE, "--from_folder", photos, "--cid", cid, "--data_dir", data_dir).exit_code() == 0
    flags = "--mnist", "--data_dir", data_dir, "--server_address", address
    server = start_server("--rounds", 1)
    start("tests/faulty_client.py", "--cid", 0, *flags)
    server.wait_for("client 0 on")
    for cid, theirs in ((1, '["bright", "dim"]'), (3, "those of mnist")):  # 3 has digits
        stranger = start("tests/faulty_client.py", "--cid", cid, *flags)
        assert stranger.exit_code(PROMPTLY) == 1
        reason = f'its classes are {theirs}, this federation\'s ["bright", "dark"]'
        assert f"refused by the server: {reason}" in stranger.output
        assert server.output.count(reason) == 1
    start("tests/faulty_client.py", "--cid", 2, *flags)
    assert server.exit_code() == 0, server.output


@pytest.mark.parametrize("damage", ["half", "flipped"])
def test_damaged_pictures_are_not_replaced_by_digits(start, data_dir, tmp_path, damage):
    photos = take_photos(tmp_path / "photos")
    assert start(*MAKE, "--from_folder", photos, "--cid", 7, "--data_dir", data_dir).exit_code() == 0
    path = data_dir / "mnist/50/7.npz"
    whole = path.read_bytes()
    half = len(whole) // 2
    damaged = whole[:half] + (b"" if damage == "half" else bytes([whole[half] ^ 1]) + whole[half + 1 :])
    path.write_bytes(damaged)
    for script in (MAKE[:2], ("client_pytorch.py",)):
        process = start(*script, "--mnist", "--cid", 7, "--data_dir", data_dir)
        assert process.exit_code() == 2
        assert f"{path}, which was made from pictures, cannot be used" in process.output
        assert "Make it again with --from_folder" in process.output and "Traceback" not in process.output
        assert path.read_bytes() == damaged
    assert start(*MAKE, "--from_folder", photos, "--cid", 7, "--data_dir", data_dir).exit_code() == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("case", ["no folder", "no images", "one class", "11 classes", "own file"])
def test_mistakes_are_one_sentence_and_nothing_is_lost(start, data_dir, tmp_path, case):
    photos, path = tmp_path / "photos", data_dir / "mnist/50/7.npz"
    if case == "no images":
        for name in ("bright", "dark"):
            (photos / name).mkdir(parents=True)
    elif case != "no folder":
        number = {"one class": 1, "11 classes": 11, "own file": 2}[case]
        take_photos(photos, tuple(f"class {i}" for i in range(number)), number=1)
    if case == "own file":
        path.parent.mkdir()
        np.savez(path, images=np.zeros((20, 28, 28), np.uint8), labels=np.arange(20) % 10)
    before = path.read_bytes() if path.exists() else None
    process = start(*MAKE, "--from_folder", photos, "--cid", 7, "--data_dir", data_dir)
    assert process.exit_code() == 2
    (line,) = process.own_lines
    assert str(path if case == "own file" else photos) in line
    assert (path.read_bytes() if path.exists() else None) == before
