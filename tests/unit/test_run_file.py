"""run.json: what a run was, for whoever wants it again; no secret in it, and no harm if it cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

from federation.results.run_file import NAME, RunFile, read

import pytest
from fakes import TOKEN, identity

SHOWN = {"rounds": 3, "sample_fraction": 0.5, "mnist": True, "evaluate_with": None}
SECRETS = {"token": TOKEN, "certificates": (b"ca", b"certificate", b"key")}


def kept(folder: Path) -> dict:
    return json.loads((folder / NAME).read_text())


def test_a_run_and_how_it_was_resumed(tmp_path):
    first = RunFile(tmp_path, 7, {**SHOWN, **SECRETS, "data_dir": Path("data")})
    first.save()
    first.add(identity(4, versions="Python 3.11.2, torch 2.9.1"))
    first.add(None)  # a plain Flower client
    first.save()
    second = RunFile(tmp_path, read(tmp_path)["seed"], {"rounds": 6})
    second.add(identity(5))
    second.save()
    found = kept(tmp_path)
    start, again = found["starts"]
    assert start["flags"] == {**SHOWN, "data_dir": "data", "token": "secret", "certificates": "secret"}
    assert set(start["versions"]) == {"python", "flwr", "numpy"} and start["time"]
    assert again["flags"] == {"rounds": 6} and found["seed"] == 7
    assert [(cid, client["device"]) for cid, client in found["clients"].items()] == [("4", "pi4"), ("5", "pi5")]
    assert found["clients"]["4"]["versions"] == "Python 3.11.2, torch 2.9.1"


@pytest.mark.parametrize("content", [None, b"\0" * 20, b"[]", b'{"seed": "x"}', b"\xff"])
def test_a_damaged_file_is_begun_again(tmp_path, content):
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    assert read(tmp_path) == {}
    RunFile(tmp_path, 8, {}).save()
    assert kept(tmp_path)["seed"] == 8 and len(kept(tmp_path)["starts"]) == 1


def test_what_cannot_be_written_is_tried_again(tmp_path):
    file = RunFile(tmp_path, 7, {})
    (tmp_path / NAME).mkdir()
    file.save()
    (tmp_path / NAME).rmdir()
    file.save()
    assert kept(tmp_path)["seed"] == 7
