"""Files that are replaced: the old content or the new one, never half of it, and nothing else in the folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from federation.files import remove_leftovers, replaced

import pytest
from processes import ROOT


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    with replaced(path) as file:  # written as zipfile does
        file.write(b"0123456789")
        file.seek(2)
        assert file.read(3) == b"234"
        file.seek(0)
        file.write(b"ab")
        assert not path.exists()
    assert path.read_bytes() == b"ab23456789"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_everything_as_it_was(tmp_path, error):
    path = tmp_path / "file"
    for before in ([], ["file"]):
        with pytest.raises(error), replaced(path) as file:
            file.write(b"half of it")
            file.flush()
            raise error
        assert names(tmp_path) == before
        assert not before or path.read_bytes() == b"old"
        path.write_bytes(b"old")


def test_data_that_does_not_reach_the_disk(tmp_path, monkeypatch):
    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "file"
    monkeypatch.setattr(os, "fsync", failing)
    number = errno.EINVAL  # of a drive without fsync
    with replaced(path) as file:
        file.write(b"old")
    number = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"), replaced(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_the_data_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, path.exists())))
    with replaced(path) as file:
        file.write(b"new")
    assert synced == [(3, False)]


def test_what_a_killed_process_leaves_is_removed_and_nothing_else(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from federation.files import replaced\n"
        "with replaced(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half of it'); file.flush()\n"
        "    print('in the middle', flush=True); time.sleep(60)\n"
    )
    others = [".gitignore", ".notes.tmp", "file", "file.0123abcd.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"old")
    command = [sys.executable, "-S", "-c", code, tmp_path / "file"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in the middle\n"
        process.kill()
    assert len(names(tmp_path)) == len(others) + 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == others and (tmp_path / "file").read_bytes() == b"old"
