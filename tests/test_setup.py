"""How people come by the project and set it up: clones, setup_venv.sh and its .venv."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import DEADLINE, PROMPTLY, ROOT
from test_readme import copy_project, project_files

MADE_AGAIN = ".venv is unfinished, damaged or from elsewhere: recreating it"


def write_program(path: Path, commands: str) -> Path:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return path


class Project:
    """A folder with setup_venv.sh and a requirement file; pip has settings, and no package index."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv = folder, folder / ".venv"
        folder.mkdir()
        shutil.copy(ROOT / "setup_venv.sh", folder)
        write_program(folder / "uv", 'echo "uv $@"')
        path, settings = f"{folder}:{os.environ['PATH']}", dict.fromkeys(("HOME", "XDG_CONFIG_DIRS"), str(folder))
        self.environment = {"PYTHON": sys.executable, "PATH": path, **settings, "PIP_NO_INDEX": "1"}

    def set_up(self, requirement: str = "pip", stdout: int = subprocess.PIPE) -> tuple[int, str]:
        """The exit code, and what is printed."""
        (self.folder / "requirements.txt").write_text(requirement)
        popen = subprocess.Popen(
            [self.folder / "setup_venv.sh", "requirements.txt"],
            env=self.environment, stdout=stdout, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        printed, _ = popen.communicate(timeout=DEADLINE)
        return popen.returncode, printed

    def makes_it_again(self) -> bool:
        code, printed = self.set_up()
        return code == 0 and MADE_AGAIN in printed and self.set_up() == (0, "")


def test_a_finished_environment_is_kept(tmp_path):
    project = Project(tmp_path / "my project")
    code, printed = project.set_up()
    assert code == 0 and printed.startswith("installing requirements.txt into .venv") and printed.count("\n") == 1
    for requirement, result in (("pip", 0), ("not-there", 1), ("pip", 0), ("pip > 1", 0)):
        code, printed = project.set_up(requirement)
        assert code == result and MADE_AGAIN not in printed
        assert (printed == "") == (requirement == "pip") and ("could not install" in printed) == (result == 1)


def test_in_doubt_it_is_made_again(tmp_path):
    """Unfinished, in another folder, with a Python that does not run."""
    project, copy = Project(tmp_path / "project"), Project(tmp_path / "copy")
    assert project.set_up("not-there")[0] == 1
    assert project.makes_it_again()
    shutil.copytree(project.venv, copy.venv, symlinks=True)
    assert copy.makes_it_again()
    (copy.venv / "bin/python").unlink()
    assert copy.makes_it_again()


def test_a_terminal_shows_progress(tmp_path):
    terminal, inside = pty.openpty()
    assert Project(tmp_path / "project").set_up(stdout=inside)[0] == 0
    assert b"Requirement already satisfied: pip" in os.read(terminal, 1 << 16)


@pytest.mark.skipif(Path("/etc/pip.conf").exists(), reason="pip has settings here")
def test_uv_installs_where_pip_has_no_settings(tmp_path):
    project = Project(tmp_path / "project")
    del project.environment["PIP_NO_INDEX"]
    assert "uv pip install --python .venv/bin/python --quiet -rrequirements.txt" in project.set_up()[1]


NEEDS = "setup_venv.sh: needs a 64-bit Python from 3.9 to 3.13, but found "
PRETEND = f'[ "$1" = -c ] && exec \'{sys.executable}\' -c "import sys; {{}}\n$2"; exit 1'


@pytest.mark.parametrize(
    ("claim", "message", "help"),
    [
        ("sys.version_info = (3, 14, 0)", NEEDS + "64-bit Python 3.14", "uv python install 3.13"),
        ("sys.maxsize = 2**31 - 1", NEEDS + "32-bit Python", "install such a system (README.md, A Raspberry Pi)"),
        ("sys.exit(1)", NEEDS + "no ", "uv python install 3.13"),
        ("", "cannot make virtual environments", "sudo apt install python3-venv"),
    ],
)
def test_a_python_that_does_not_do(tmp_path, claim, message, help):
    project, python = Project(tmp_path / "project"), write_program(tmp_path / "python", PRETEND.format(claim))
    project.environment["PYTHON"] = str(python)
    code, printed = project.set_up()
    assert code == 1 and message in printed and help in printed and not project.venv.exists()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_clone_has_the_line_ends_that_scripts_need(tmp_path):
    copy_project(tmp_path / "all")
    names = "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"
    environment = {"PATH": os.environ["PATH"], **dict.fromkeys(names, "test"), "GIT_CONFIG_GLOBAL": os.devnull}
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "all"], ["clone", "-q", ".", "../clone"]):
        command = ["git", "-c", "core.autocrlf=true", *words]
        subprocess.run(command, cwd=tmp_path / "all", env=environment, check=True, timeout=PROMPTLY)
    for name in project_files():
        assert (tmp_path / "clone" / name).read_bytes() == (ROOT / name).read_bytes(), name
