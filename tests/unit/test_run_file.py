"""run.json: what a run was, for whoever wants it again; no secret in it, and no harm if it cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

from federation.results import run_file
from federation.results.run_file import NAME, RunFile, read

import pytest
from fakes import TOKEN, identity

FLAGS = {
    "rounds": 3, "sample_fraction": 0.5, "mnist": True, "evaluate_with": None, "data_dir": Path("data"),
    "token": TOKEN, "certificates": (b"ca", b"certificate", b"key"),
}  # fmt: skip


def kept(folder: Path) -> dict:
    return json.loads((folder / NAME).read_text())


def test_a_new_run(tmp_path):
    file = RunFile(tmp_path, 7, FLAGS)
    file.save()
    file.add(identity(4, versions="Python 3.11.2, torch 2.9.1"))
    file.add(None)  # a plain Flower client
    file.save()
    found = kept(tmp_path)
    assert found["seed"] == 7 == read(tmp_path)["seed"]
    (start,) = found["starts"]
    assert start["flags"] == {
        "rounds": 3, "sample_fraction": 0.5, "mnist": True, "evaluate_with": None, "data_dir": "data",
        "token": "given", "certificates": "given",
    }  # fmt: skip
    assert set(start["versions"]) == {"python", "flwr", "numpy"} and start["time"]
    assert found["clients"].keys() == {"4"}
    assert found["clients"]["4"]["device"] == "pi4"
    assert found["clients"]["4"]["versions"] == "Python 3.11.2, torch 2.9.1"


def test_a_run_that_is_resumed_has_started_twice(tmp_path):
    first = RunFile(tmp_path, 7, {"rounds": 3})
    first.add(identity(4))
    first.save()
    second = RunFile(tmp_path, 7, {"rounds": 6})
    second.add(identity(5))
    second.save()
    found = kept(tmp_path)
    assert [start["flags"]["rounds"] for start in found["starts"]] == [3, 6]
    assert found["clients"].keys() == {"4", "5"}


@pytest.mark.parametrize("content", [None, b"", b"\0" * 20, b"[]", b"{}", b'{"seed": "x"}', b"\xff", b'{"seed": 7'])
def test_a_damaged_file_is_begun_anew(tmp_path, content):
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    assert read(tmp_path) == {}
    RunFile(tmp_path, 8, {}).save()
    assert kept(tmp_path)["seed"] == 8 and len(kept(tmp_path)["starts"]) == 1


def test_what_cannot_be_written_is_tried_again(tmp_path, monkeypatch):
    file = RunFile(tmp_path, 7, {})
    replaced = run_file.replaced

    def refuse(path):
        raise OSError("the disk is full")

    monkeypatch.setattr(run_file, "replaced", refuse)
    file.save()
    assert not (tmp_path / NAME).exists()
    monkeypatch.setattr(run_file, "replaced", replaced)
    file.save()
    assert kept(tmp_path)["seed"] == 7


def test_what_has_not_changed_is_not_written(tmp_path):
    file = RunFile(tmp_path, 7, {})
    file.save()
    (tmp_path / NAME).unlink()
    file.save()
    assert not (tmp_path / NAME).exists()
