"""How people come by the project and set it up: clones and archives, setup_venv.sh and its .venv."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest
from processes import DEADLINE, PROMPTLY, ROOT
from test_readme import project_files

SITE_PACKAGES = f"lib/python{sysconfig.get_python_version()}/site-packages"
MADE_ANEW = ".venv is damaged or was made elsewhere, and is made anew"


def untold(**more: str) -> dict[str, str]:
    """The environment, but neither pip, uv nor git has been told anything by variables other than these."""
    settings = "PIP_", "UV_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PYTHON", "VIRTUAL_ENV", "GIT_"
    return {**{name: value for name, value in os.environ.items() if not name.startswith(settings)}, **more}


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=untold(**environment), capture_output=True, text=True, timeout=DEADLINE)


def write_program(path: Path, commands: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return path


def write_wheel(folder: Path, name: str, num_files: int = 1) -> None:
    info = f"{name}-1.0.dist-info"
    files = {f"{name}/part{number}.py": "" for number in range(num_files)}
    files[f"{name}/__init__.py"] = ""
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for file, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, content)


class Project:
    """A folder with setup_venv.sh, a requirement file, and a pip.conf that knows a package index without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        folder.mkdir()
        shutil.copy(ROOT / "setup_venv.sh", folder)
        write_wheel(folder / "index", "tiny")
        self.require("tiny")
        self.configure()
        write_program(folder / "bin/uv", f"echo uv \"$@\" >> '{folder}/asked'; exit 1")

    def require(self, name: str) -> None:
        (self.folder / "requirements.txt").write_text(f"--only-binary :all:\n{name}\n")

    def configure(self, more: str = "") -> None:
        index = (self.folder / "index").as_uri()
        (self.folder / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {index}\n{more}\n")

    @property
    def environment(self) -> dict[str, str]:
        paths = f"{self.folder}/bin:{os.environ['PATH']}"
        return {"PYTHON": sys.executable, "PIP_CONFIG_FILE": f"{self.folder}/pip.conf", "PATH": paths}

    def set_up(self, **environment: str) -> subprocess.CompletedProcess:
        command = self.folder / "setup_venv.sh", "requirements.txt"
        return run(*command, cwd=self.folder, **{**self.environment, **environment})

    def works(self) -> bool:
        """Whether the environment can be activated, has pip, and has the required package, in there."""
        activate = "source .venv/bin/activate && pip --version && python -c 'import tiny; print(tiny.__file__)'"
        shown = run("bash", "-c", activate, cwd=self.folder)
        return shown.returncode == 0 and shown.stdout.count(f"{self.venv.resolve()}/{SITE_PACKAGES}") == 2


@pytest.fixture(scope="module")
def set_up_project(tmp_path_factory) -> Project:
    """A project whose path has a blank in it; each test breaks its environment, and has it made anew."""
    return Project(tmp_path_factory.mktemp("setup") / "my project")


@pytest.fixture
def project(set_up_project) -> Project:
    made = set_up_project.set_up()
    assert made.returncode == 0, made.stdout + made.stderr
    assert set_up_project.works()
    return set_up_project


def without_python3_venv(venv: Path) -> None:
    """What `python3 -m venv` leaves behind where Debian's package is missing."""
    shutil.rmtree(venv / SITE_PACKAGES)
    (venv / SITE_PACKAGES).mkdir()
    (venv / "bin/activate").unlink()


def system_without_that_python(venv: Path) -> None:
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/usr/bin/python3.none")


def system_with_a_newer_python(venv: Path) -> None:
    """The link now leads to another Python, for which nothing is installed."""
    (venv / SITE_PACKAGES).parent.rename(venv / "lib/python3.6")


def python_out_of_range(venv: Path) -> None:
    (venv / "bin/python").unlink()
    pretend(venv / "bin/python", "version_info = (3, 14, 0)")


def program_of_another_processor(venv: Path) -> None:
    (venv / "bin/python").unlink()
    (venv / "bin/python").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    (venv / "bin/python").chmod(0o755)


def packages_of_another_processor(venv: Path) -> None:
    """With the same Python under the same name: only what is compiled does not fit."""
    tag = f"{sys.implementation.cache_tag}-riscv64-linux-gnu"
    (venv / SITE_PACKAGES / f"tiny/compiled.{tag}.so").write_bytes(b"")


def half_a_package(venv: Path) -> None:
    """What a killed installation may leave: pip and uv see a package, not that most of it is missing."""
    shutil.rmtree(venv / SITE_PACKAGES / "tiny")


def package_without_a_list_of_its_files(venv: Path) -> None:
    """The same, a moment later: pip writes that list at the end."""
    (venv / SITE_PACKAGES / "tiny-1.0.dist-info/RECORD").unlink()


def no_pip_program(venv: Path) -> None:
    for path in venv.glob("bin/pip*"):
        path.unlink()


def half_of_pip(venv: Path) -> None:
    shutil.rmtree(venv / SITE_PACKAGES / "pip/_internal")


def no_environment_at_all(venv: Path) -> None:
    (venv / "pyvenv.cfg").unlink()


BREAKAGES = [
    without_python3_venv, system_without_that_python, packages_of_another_processor, half_a_package, half_of_pip,
    *(
        pytest.param(breakage, marks=pytest.mark.slow) for breakage in (
            system_with_a_newer_python, python_out_of_range, program_of_another_processor,
            package_without_a_list_of_its_files, no_pip_program, no_environment_at_all,
        )
    ),
]  # fmt: skip


def pretend(path: Path, *claims: str) -> Path:
    """Write a Python that says other things about itself in `python -c`, such as "version_info = (3, 14, 0)"."""
    lies = "; ".join(f"import sys; sys.{claim}" for claim in claims)
    return write_program(path, f'[ "$1" = -c ] || exit 9\nexec \'{sys.executable}\' -c "{lies}\n$2"')


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.__name__)
def test_an_environment_that_does_not_work_is_made_anew(project, breakage):
    breakage(project.venv)
    made = project.set_up()  # though the requirement file has not changed
    assert made.returncode == 0 and MADE_ANEW in made.stdout, made.stdout + made.stderr
    assert project.works()


def test_a_copied_environment_is_made_anew_and_the_first_one_left_alone(project, tmp_path):
    shutil.copytree(project.folder, tmp_path / "copy", symlinks=True)
    copy = Project.__new__(Project)
    copy.folder, copy.venv = tmp_path / "copy", tmp_path / "copy/.venv"
    made = copy.set_up()
    assert made.returncode == 0 and MADE_ANEW in made.stdout, made.stdout + made.stderr
    assert copy.works() and project.works()


def test_an_environment_that_works_is_kept(project):
    """Nothing is done if nothing has changed, and what else is installed stays if something has, or cannot be had."""
    (project.venv / SITE_PACKAGES / "of_the_user.py").touch()
    made = project.set_up()
    assert made.returncode == 0 and made.stdout == made.stderr == ""
    project.require("not-there")
    failed = project.set_up()
    assert failed.returncode == 1 and "not-there" in failed.stderr
    project.require("tiny")
    made = project.set_up()
    assert made.returncode == 0 and MADE_ANEW not in made.stdout
    assert (project.venv / SITE_PACKAGES / "of_the_user.py").exists()


@pytest.mark.parametrize("made_by", [["-m", "venv"], ["-m", "uv", "venv", "--quiet"]], ids=["venv", "uv, without pip"])
def test_an_environment_made_by_hand_is_taken(project, made_by):
    shutil.rmtree(project.venv)
    by_hand = run(sys.executable, *made_by, ".venv", cwd=project.folder)
    assert by_hand.returncode == 0, by_hand.stderr
    (project.venv / SITE_PACKAGES / "of_the_user.py").touch()
    made = project.set_up()
    assert made.returncode == 0 and MADE_ANEW not in made.stdout, made.stdout + made.stderr
    assert (project.venv / SITE_PACKAGES / "of_the_user.py").exists() and project.works()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_installation_is_completed(project, how):
    write_wheel(project.folder / "index", "large", num_files=2000)
    (project.folder / "requirements.txt").write_text("--only-binary :all:\ntiny\nlarge\n")
    environment = untold(**project.environment)
    popen = subprocess.Popen(
        [project.folder / "setup_venv.sh", "requirements.txt"], env=environment, start_new_session=True
    )
    deadline = time.monotonic() + PROMPTLY
    while not (project.venv / SITE_PACKAGES / "large").exists():
        assert popen.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(popen.pid, how)
    assert popen.wait(PROMPTLY) != 0
    made = project.set_up()
    project.require("tiny")
    assert made.returncode == 0, made.stdout + made.stderr
    assert project.works()
    assert len(list((project.venv / SITE_PACKAGES / "large").glob("part*.py"))) == 2000


def test_an_environment_that_cannot_be_made_leaves_nothing_behind(tmp_path):
    project = Project(tmp_path / "project")
    fails = f'[ "$1" = -c ] && exec \'{sys.executable}\' "$@"\nmkdir -p .venv/bin && touch .venv/bin/python && exit 1'
    made = project.set_up(PYTHON=str(write_program(tmp_path / "bin/python3", fails)))
    assert made.returncode == 1 and "sudo apt install python3-venv" in made.stderr
    assert not project.venv.exists()
    made = project.set_up()
    assert made.returncode == 0 and project.works()


@pytest.mark.parametrize(
    ("claims", "found", "help"),
    [
        (["version_info = (3, 14, 0)"], "64-bit Python 3.14", "uv python install 3.13"),
        (["version_info = (3, 8, 18)"], "64-bit Python 3.8", "uv python install 3.13"),
        (["maxsize = 2**31 - 1"], "32-bit Python", "install one of these (README.md, A Raspberry Pi)"),
        ([], "no python3", "uv python install 3.13"),
    ],
    ids=lambda value: str(value),
)
def test_a_python_that_does_not_do(tmp_path, claims, found, help):
    """Whether it is the only one or the one that was asked for."""
    project = Project(tmp_path / "project")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "cmp", "sed", "sh"):
        (programs / name).symlink_to(shutil.which(name))
    ways = [{"PATH": str(programs), "PYTHON": ""}]
    if claims:
        ways.append({"PYTHON": str(pretend(programs / "python3", *claims))})
    for way in ways:
        made = project.set_up(**way)
        assert made.returncode == 1 and made.stdout == "", made.stdout
        assert "setup_venv.sh: needs a 64-bit Python from 3.9 to 3.13, and there is " in made.stderr
        assert found in made.stderr and help in made.stderr and "Traceback" not in made.stderr
        assert not project.venv.exists()


PLACES = {
    "PIP_USER": {"PIP_USER": "1"},
    "PIP_TARGET": {"PIP_TARGET": "elsewhere"},
    "PIP_PREFIX": {"PIP_PREFIX": "elsewhere", "PIP_ROOT": "elsewhere"},
    "PIP_REQUIRE_VIRTUALENV": {"PIP_REQUIRE_VIRTUALENV": "1"},
    "user = true": {},
    "target = elsewhere": {},
}


@pytest.mark.parametrize("place", PLACES)
def test_pip_gets_packages_from_where_it_is_told_but_installs_into_the_environment(project, place):
    shutil.rmtree(project.venv / "installed")
    shutil.rmtree(project.venv / SITE_PACKAGES / "tiny")
    shutil.rmtree(project.venv / SITE_PACKAGES / "tiny-1.0.dist-info")
    project.configure(more=f"[install]\n{place}" if "=" in place else "")
    made = project.set_up(**PLACES[place])
    project.configure()
    assert made.returncode == 0, made.stderr
    assert project.works() and not (project.folder / "elsewhere").exists()
    assert not (project.folder / "asked").exists()  # uv, which would not have known where to look


@pytest.mark.parametrize("settings", [{"UV_DEFAULT_INDEX": "http://127.0.0.1:9"}, {"XDG_CONFIG_HOME": "config"}])
def test_uv_installs_if_it_has_been_told_where_from(project, settings, tmp_path):
    shutil.rmtree(project.venv / "installed")
    (project.folder / "config/uv").mkdir(parents=True, exist_ok=True)
    (project.folder / "config/uv/uv.toml").write_text('[[index]]\nurl = "http://127.0.0.1:9"\n')
    write_program(project.folder / "bin/uv", f"echo \"$@\" >> '{tmp_path}/asked'")
    made = project.set_up(**settings)
    write_program(project.folder / "bin/uv", "exit 1")
    assert made.returncode == 0, made.stderr
    assert "pip install --quiet --python .venv/bin/python -rrequirements.txt" in (tmp_path / "asked").read_text()


@pytest.fixture
def copy(tmp_path) -> Path:
    """The project's files, outside of git."""
    folder = tmp_path / "embedded-devices"
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_a_clone_has_the_line_ends_that_scripts_need(copy, tmp_path, setting):
    git = "git", "-c", setting
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    environment = {**dict.fromkeys(names, "test"), "GIT_CONFIG_GLOBAL": os.devnull}
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "all"], ["clone", "-q", copy, "clone"]):
        done = run(*git, *command, cwd=copy, **environment)
        assert done.returncode == 0, done.stderr
    clone = copy / "clone"
    for name in project_files():
        content = (clone / name).read_bytes()
        assert content == (ROOT / name).read_bytes(), name
        assert b"\r" not in content or name.endswith((".png", ".gif", ".parquet")), name
    assert run(clone / "run_demo.sh", "--help", cwd=clone).returncode == 0


@pytest.mark.slow
def test_linters_and_tests_run_without_git(copy, tmp_path):
    """In an unpacked archive, in a clone of somebody else ("dubious ownership"), and where there is no git."""
    (copy / ".venv").symlink_to(ROOT / ".venv")
    write_program(copy / "setup_venv.sh", "true")
    write_program(copy / ".venv-other/bad.py", "import os, sys")
    write_program(copy / "data/notes.md", "\x74eh")
    refuses = f"touch '{tmp_path}/asked'; echo 'fatal: detected dubious ownership' >&2; exit 128"
    git = write_program(tmp_path / "bin/git", refuses)
    environment = {"PATH": f"{git.parent}:{os.environ['PATH']}"}
    tested = run("./run_tests.sh", "--quick", "-k", "test_addresses", cwd=copy, **environment)
    assert tested.returncode == 0 and " passed" in tested.stdout, tested.stdout + tested.stderr
    documents = sys.executable, "-m", "pytest", "-q", "tests/test_readme.py", "-k", "named"
    tested = run(*documents, cwd=copy, **environment)
    assert tested.returncode == 0 and " passed" in tested.stdout, tested.stdout + tested.stderr
    assert not (tmp_path / "asked").exists()
