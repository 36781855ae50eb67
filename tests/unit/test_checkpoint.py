"""The checkpoint: what is read is what was written, bit for bit; what is damaged is no checkpoint."""

from __future__ import annotations

import dataclasses
import json
import zipfile

from federation.results import checkpoint
from federation.results.checkpoint import NAME, Checkpoint, load, save

import numpy as np
import pytest
from fakes import MODEL, SOMEBODY

EXAMPLE = Checkpoint(MODEL, round=7, committed=5, results=3, failures=2, member=SOMEBODY)


def test_bit_for_bit(tmp_path):
    random = np.random.default_rng(0)
    odd = np.frombuffer(b"\x00\x00\x00\x80\x01\x00\x00\x00\x01\x00\xc0\x7f", "<f4")  # -0, the least, NaN 1
    model = [
        odd,
        odd.astype(">f8"),
        np.array(1.5),
        np.zeros((0, 3), np.int64),
        np.asfortranarray(random.standard_normal((3, 2))),
        *[np.full(i, i, np.uint8) for i in range(20)],  # more than ten: arr_10 comes after arr_9
    ]
    save(tmp_path, dataclasses.replace(EXAMPLE, model=model))
    loaded = load(tmp_path)
    assert len(loaded.model) == len(model)
    for array, original in zip(loaded.model, model):
        assert (array.shape, array.dtype, array.tobytes()) == (original.shape, original.dtype, original.tobytes())
    assert dataclasses.replace(loaded, model=[]) == dataclasses.replace(EXAMPLE, model=[])


def test_without_a_member(tmp_path):
    save(tmp_path, dataclasses.replace(EXAMPLE, member=None))
    assert load(tmp_path).member is None
    assert load(tmp_path).round == 7


def test_numpy_reads_the_model(tmp_path):
    save(tmp_path, EXAMPLE)
    with np.load(tmp_path / NAME) as file:
        assert [file[name].tolist() for name in file.files] == [array.tolist() for array in MODEL]


def test_the_next_one_takes_the_place_of_the_last(tmp_path):
    save(tmp_path, EXAMPLE)
    save(tmp_path, dataclasses.replace(EXAMPLE, round=8, model=[np.ones(1)]))
    assert load(tmp_path).round == 8 and len(load(tmp_path).model) == 1
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_run_that_ended_before_its_first_checkpoint(tmp_path):
    assert load(tmp_path) == Checkpoint()
    assert Checkpoint().model == [] and Checkpoint().round == 0


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


def test_damaged_at_any_place(tmp_path):
    save(tmp_path, EXAMPLE)
    whole = (tmp_path / NAME).read_bytes()
    for length in range(0, len(whole), 20):
        (tmp_path / NAME).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"its {NAME} is no checkpoint of a run, or damaged"):
            load(tmp_path)
    at = whole.index(MODEL[0].tobytes())
    (tmp_path / NAME).write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x93NUMPY", b"\0" * 1000])
def test_a_file_that_is_no_archive(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint of a run"):
        load(tmp_path)


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("letter.txt", "Dear reader")
    with pytest.raises(ValueError, match="is no checkpoint of a run"):
        load(tmp_path)


def test_pickles_are_not_run(tmp_path):
    np.savez(tmp_path / NAME, np.array([{}]))
    with zipfile.ZipFile(tmp_path / NAME, "a") as archive:
        archive.comment = b'{"round": 1, "member": null}'
    with pytest.raises(ValueError, match="is no checkpoint of a run"):
        load(tmp_path)


@pytest.mark.parametrize(
    "comment", ["", "{", "[]", "{}", '{"round": 1}', '{"member": null, "unknown": 1}', '{"member": "a"}']
)
def test_a_model_without_what_there_is_to_know_about_it(tmp_path, comment):
    np.savez(tmp_path / NAME, *MODEL)
    with zipfile.ZipFile(tmp_path / NAME, "a") as archive:
        archive.comment = comment.encode()
    with pytest.raises(ValueError, match="is no checkpoint of a run"):
        load(tmp_path)


def test_a_save_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    save(tmp_path, EXAMPLE)
    before = (tmp_path / NAME).read_bytes()

    def full_disk(file, *arrays):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, dataclasses.replace(EXAMPLE, round=8))
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_the_comment_is_plain_json(tmp_path):
    save(tmp_path, EXAMPLE)
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        assert json.loads(archive.comment) == {
            "round": 7, "committed": 5, "results": 3, "failures": 2, "member": dataclasses.asdict(SOMEBODY),
        }  # fmt: skip


def test_a_checkpoint_is_not_changed_by_mistake():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLE.round = 8
