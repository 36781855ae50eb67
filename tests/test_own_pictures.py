"""A federation on your own pictures: what the command makes, devices train on."""

from __future__ import annotations

from pathlib import Path

from federation.results.tables import read_table

import numpy as np
import pytest
from conftest import copy_sample
from PIL import Image
from processes import federate

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


@pytest.mark.parametrize("framework", ["pytorch", pytest.param("tf", marks=pytest.mark.slow)])
def test_two_devices_with_pictures_of_their_own(processes, data_dir, tmp_path, framework):
    for what in (("--cid", 0), ("--cid", 1), ("--test",)):
        photos = take_photos(tmp_path / f"photos-{what[-1]}")
        (photos / "dark/notes.txt").write_text("no picture")
        process = processes.start(*MAKE, "--from_folder", photos, *what, "--data_dir", data_dir)
        assert process.exit_code() == 0, process.output
        assert f"{photos / 'dark/notes.txt'} is skipped: it is not an image" in process.output
        assert "bright (40), dark (40)\n" in process.output and process.output.endswith(".npz\n")
    data = "--mnist", "--data_dir", data_dir
    evaluation = "--evaluate_with", framework, *data
    run = federate(processes, f"client_{framework}.py", ("--rounds", 2, *evaluation), data)
    assert float(run.rounds[-1]["accuracy"]) > 0.9 and float(run.rounds[-1]["central_accuracy"]) > 0.9
    assert {row["examples"] for row in run.client_rows} == {"72"}
    classes = read_table(run.results / "classes.csv")
    assert [(row["label"], row["class"]) for row in classes] == [("0", "bright"), ("1", "dark")] * 2
