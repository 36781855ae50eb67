"""A federation on your own pictures: what the command makes, and who may take part."""

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
    """A data folder with the MNIST sample, which could be partitioned."""
    return copy_sample(tmp_path / "data")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_devices_with_pictures_of_their_own(processes, data_dir, tmp_path, framework):
    for what in (("--cid", 0), ("--cid", 1), ("--test",)):
        photos = take_photos(tmp_path / f"photos-{what[-1]}")
        (photos / "dark/notes.txt").write_text("no picture")
        process = processes.start(*MAKE, "--from_folder", photos, *what, "--data_dir", data_dir)
        assert process.exit_code() == 0, process.output
        assert f"{photos / 'dark/notes.txt'} is skipped: it is no image" in process.output
        assert "bright (40), dark (40)\n" in process.output and process.output.endswith(".npz\n")
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
    for cid, theirs in ((1, "bright, dim"), (3, "those of mnist")):  # 3 has digits
        stranger = start("tests/faulty_client.py", "--cid", cid, *flags)
        assert stranger.exit_code(PROMPTLY) == 1
        reason = f"its classes are {theirs}; this federation's are bright, dark"
        assert f"refused by the server: {reason}" in stranger.output
        assert server.output.count(reason) == 1
    start("tests/faulty_client.py", "--cid", 2, *flags)
    assert server.exit_code() == 0, server.output
