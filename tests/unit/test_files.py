"""Files that are replaced: the old content or the new one, never half of it, and nothing else in the folder."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from federation import files

import pytest
from processes import ROOT

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has files without a name")


@pytest.fixture(params=[pytest.param("unnamed", marks=linux), "named"])
def kind(request, monkeypatch, tmp_path) -> str:
    """Both ways to write: into a file without a name, and into one with a name, where there is nothing else."""
    if request.param == "named":
        monkeypatch.setattr(files, "_open_unnamed", lambda folder: None)
    else:
        descriptor = files._open_unnamed(tmp_path)
        if descriptor is None:
            pytest.skip("this file system has no files without a name")
        os.close(descriptor)
    return request.param


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file(kind, tmp_path):
    path = tmp_path / "a" / "b" / "file"
    umask = os.umask(0o022)
    try:
        with files.replaced(path) as file:
            file.write(b"new")
            assert not path.exists()
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["file"]


def test_an_old_file_is_there_until_the_end(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    with files.replaced(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old and longer"
        assert kind == "named" or names(tmp_path) == ["file"]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_what_is_written_can_be_read_and_changed(kind, tmp_path):
    with files.replaced(tmp_path / "file") as file:  # as zipfile does
        file.write(b"0123456789")
        file.seek(2)
        assert file.read(3) == b"234"
        file.seek(0)
        file.write(b"ab")
    assert (tmp_path / "file").read_bytes() == b"ab23456789"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_error_leaves_everything_as_it_was(kind, tmp_path, before, error):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), files.replaced(path) as file:
        file.write(b"half of it")
        file.flush()
        raise error
    assert names(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_a_disk_that_is_full_at_the_last_moment(kind, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), files.replaced(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_fsync(kind, tmp_path, monkeypatch, number):
    def refused(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    with files.replaced(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_data_that_does_not_reach_the_disk(kind, tmp_path, monkeypatch, number):
    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=os.strerror(number)), files.replaced(tmp_path / "file") as file:
        file.write(b"new")
    assert names(tmp_path) == []


@linux
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOENT])
def test_a_file_system_that_gives_no_name_to_a_file_without_one(tmp_path, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "link", refused)
    with files.replaced(tmp_path / "file") as file:
        file.write(b"new and longer" * 100_000)
    assert (tmp_path / "file").read_bytes() == b"new and longer" * 100_000 and names(tmp_path) == ["file"]


@linux
@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOENT])
def test_a_file_system_that_has_no_files_without_a_name(tmp_path, monkeypatch, number):
    real_open = os.open

    def without(path, flags, *arguments):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real_open(path, flags, *arguments)

    monkeypatch.setattr(os, "open", without)
    with files.replaced(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new" and names(tmp_path) == ["file"]


def test_the_first_error_is_the_one_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_open_unnamed", lambda folder: None)

    def gone(path):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", gone)
        with pytest.raises(ValueError), files.replaced(tmp_path / "file"):
            raise ValueError


def test_the_data_is_on_the_disk_before_the_file_has_its_name(kind, tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, path.exists())))
    with files.replaced(path) as file:
        file.write(b"new")
    assert synced == [(3, False)]


def test_a_folder_that_cannot_be_made(kind, tmp_path):
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(OSError), files.replaced(tmp_path / "file" / "file"):
        pass
    assert (tmp_path / "file").read_bytes() == b"no folder"


@linux
def test_no_descriptor_stays_open(kind, tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    for i in range(10):
        with pytest.raises(ValueError), files.replaced(tmp_path / "file"):
            raise ValueError
        with files.replaced(tmp_path / "file") as file:
            file.write(b"%d" % i)
    assert len(list(Path("/dev/fd").iterdir())) == before


@linux
def test_a_process_that_is_killed_in_the_middle_leaves_no_file_behind(tmp_path):
    descriptor = files._open_unnamed(tmp_path)
    if descriptor is None:
        pytest.skip("this file system has no files without a name")
    os.close(descriptor)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from federation.files import replaced\n"
        "with replaced(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half of it'); file.flush()\n"
        "    print('in the middle', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-S", "-c", code, path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"in the middle\n"
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]
