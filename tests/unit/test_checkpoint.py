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


def test_a_zip_of_numpy_arrays_with_json_as_its_comment(tmp_path):
    """As earlier versions wrote it: a run can be resumed by a later one."""
    np.savez(tmp_path / NAME, *MODEL)
    metadata = {"round": 7, "committed": 5, "results": 3, "failures": 2, "member": dataclasses.asdict(SOMEBODY)}
    with zipfile.ZipFile(tmp_path / NAME, "a") as archive:
        archive.comment = json.dumps(metadata).encode()
    by_hand = load(tmp_path)
    save(tmp_path, EXAMPLE)
    with zipfile.ZipFile(tmp_path / NAME) as archive:
        assert json.loads(archive.comment) == metadata
    with np.load(tmp_path / NAME) as file:
        assert [file[name].tolist() for name in file.files] == [array.tolist() for array in MODEL]
    assert dataclasses.replace(by_hand, model=[]) == dataclasses.replace(EXAMPLE, model=[])
    save(tmp_path, dataclasses.replace(EXAMPLE, round=8, model=[np.ones(1)], member=None))
    assert (load(tmp_path).round, len(load(tmp_path).model), load(tmp_path).member) == (8, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_folder_without_a_checkpoint(tmp_path):
    assert load(tmp_path) == Checkpoint()  # the run ended before its first
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


def test_damaged_at_any_place(tmp_path):
    save(tmp_path, EXAMPLE)
    whole = (tmp_path / NAME).read_bytes()
    at = whole.index(MODEL[0].tobytes())
    for content in (*(whole[:length] for length in range(0, len(whole), 40)), whole[:at] + b"\x01" + whole[at + 1 :]):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(ValueError, match=f"its {NAME} is not a checkpoint of a run, or is damaged"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("model", "comment"),
    [(MODEL, ""), (MODEL, "[]"), (MODEL, '{"round": 1}'), (MODEL, '{"member": null, "unknown": 1}')]
    + [([np.array([{}])], '{"round": 1, "member": null}')],  # a pickle, which is not run
)
def test_another_archive_is_no_checkpoint(tmp_path, model, comment):
    np.savez(tmp_path / NAME, *model)
    with zipfile.ZipFile(tmp_path / NAME, "a") as archive:
        archive.comment = comment.encode()
    with pytest.raises(ValueError, match="is not a checkpoint of a run"):
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
