"""The documents are true: what they name exists, and the commands of the README and of docs/ work, word for word."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import copy_sample
from processes import DEADLINE, ROOT

PAGES = ["README.md", *(f"docs/{page}.md" for page in ("devices", "running", "changing", "troubleshooting", "engines"))]
DOCUMENTS = [
    *PAGES,
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"{name}/README.md" for name in ("backbone", "base_images", "benchmarks")),
]
MADE_LATER = re.compile(  # files that are made by running the commands
    r"(\./)?(\.venv|data|data_fashion|own_data|photos|fleet/boards\.yml|results|certificates|digits\.(keras|onnx)|ca\.(crt|key)|server\.(pem|key))\b.*"
    r"|(rounds|clients|classes)\.csv|(model|classifier)\.npz|test_photos|run\.json|history\.png|base_image\.txt"
)
OTHER_PROGRAMS = {"--no-cache-dir", "--runtime", "--hostname", "--ask-become-pass", "--limit"}
TERMINALS = "each line in a terminal of its own"
WITH_ALL = "with ./run_tests.sh --all"
ADDRESS = "192.168.1.10"
SAME_PROBABILITIES = """
from pathlib import Path
import client_pytorch, numpy as np, onnxruntime, torch
from federation.data.partitions import load_test_split
images = load_test_split("mnist", Path("data")).images
model = client_pytorch.build_model("mnist")
with np.load("results/mnist/model.npz") as arrays:
    client_pytorch.set_parameters(model, list(arrays.values()))
expected = model.eval()(client_pytorch.to_inputs(torch.from_numpy(images))).softmax(1).detach().numpy()
(found,) = onnxruntime.InferenceSession("digits.onnx").run(None, {"images": images})
assert len(found) > 100 and found.max() > 0.9
np.testing.assert_allclose(found, expected, atol=1e-5)
"""
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}  # Flower's commands report to nobody


class Block(NamedTuple):
    """A fenced block of a document, with the comment and the first bold words before it."""

    language: str
    comment: str
    title: str
    text: str

    def commands(self) -> list[str]:
        return self.text.replace("\\\n", "").splitlines()


def blocks(*documents: str) -> list[Block]:
    found, comment, title = [], "", ""
    text = "".join((ROOT / document).read_text() for document in documents)
    for match in re.finditer(r"^```(\w*)\n((?:.*\n)*?)```|^<!-- (.*) -->$|^\*\*(.+?)\.\*\*|^#+ (.*)$", text, re.M):
        if match[3]:
            comment = match[3]
        elif match[4] or match[5]:
            title = match[4] or match[5]
        else:
            found.append(Block(match[1], comment, title, match[2]))
            comment = ""
    return found


def prose(document: str | Path) -> str:
    """The text of a document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.M | re.S)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def project_files() -> list[str]:
    """The files that git would not ignore; found without git, as this may be an unpacked archive."""
    patterns = [".git", *(ROOT / ".gitignore").read_text().splitlines()]

    def is_ignored(path: Path) -> bool:
        names = [path.name, f"/{path.relative_to(ROOT)}", str(path.relative_to(ROOT))]
        if path.is_dir():
            names += [f"{name}/" for name in names]
        pairs = [(name, pattern) for name in names for pattern in patterns]
        return any(fnmatch(*pair) for pair in pairs if pair[0].count("/") == pair[1].count("/"))  # git's * matches no /

    found: list[Path] = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not is_ignored(Path(folder, name))]
        found += [Path(folder, name) for name in files if not is_ignored(Path(folder, name))]
    return [str(path.relative_to(ROOT)) for path in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_pictures(document):
    links = [link for link in re.findall(r"\]\(([^)]*)\)", prose(document)) if not link.startswith("https://")]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
    for picture in re.findall(r"^!\[.*", prose(document), re.M):
        assert re.fullmatch(r"!\[[^]]{20,}\]\(\S+\)", picture), f"a picture needs a text that describes it: {picture}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named(document):
    files = project_files()
    known = {*files, *(Path(name).name for name in files), *(str(p) for name in files for p in Path(name).parents)}
    words = re.findall(r"`([^`\n]+)`", prose(document))
    words += [word for block in blocks(document) if block.language == "bash" for word in block.text.split()]
    for word in (word.strip("\"'") for word in words):
        name = word.rstrip("/").replace("./", "", 1)
        if re.fullmatch(r"[\w./@-]+\.(py|sh|md|txt|yml|png|csv|npz|crt|service|gif)|\w+(/\w+)*/", word):
            assert name in known or str(Path(document).parent / name) in known or MADE_LATER.fullmatch(name), word


def test_the_map_has_every_file_and_the_walks_name_functions():
    text = prose("CONTRIBUTING.md")
    rows = " ".join(re.findall(r"^\|.*$", text, re.M))
    for path in (ROOT / "federation").rglob("*.py"):
        assert path.name == "__init__.py" or f"`{path.name}`" in rows, path
    walks = re.findall(r"`(\w+)`\s+in\s+`(federation/[\w/]+\.py)`", text)
    assert len(walks) >= 12
    for function, name in walks:
        assert re.search(rf"^ *def {function}\(", (ROOT / name).read_text(), re.M), (function, name)


SCRIPTS = {
    **{name: [sys.executable, name] for name in ("server.py", "flower_app.py", "teach.py")},
    **{f"client_{name}.py": [sys.executable, f"client_{name}.py"] for name in ("pytorch", "tf", "onnx")},
    **{name: [sys.executable, "-m", name] for name in ("federation.data", "federation.results.compare")},
    **{name: [str(Path(sys.executable).with_name(name))] for name in ("flower-superlink", "flower-supernode")},
    **{name: [f"./{name}"] for name in ("run_demo.sh", "run_tests.sh", "build_jetson_flower_client.sh")},
}


@functools.lru_cache(maxsize=None)
def flags(script: str) -> set[str]:
    """The flags of a script, from its --help."""
    command, environment = [*SCRIPTS[script], "--help"], {**os.environ, **QUIET}
    output = subprocess.check_output(command, cwd=ROOT, env=environment, text=True, timeout=DEADLINE)
    return {"--help", *re.findall(r"--[\w-]+", output)}


def test_flags_that_are_named():
    benchmarks = {"--frameworks", "--datasets", "--clients", "--repeat"}
    anywhere = OTHER_PROGRAMS.union(*map(flags, SCRIPTS))
    for document in DOCUMENTS:
        known = anywhere | (benchmarks if document.startswith("benchmarks") else set())
        for code in re.findall(r"`([^`\n]+)`", prose(document)):
            if code.startswith("--") or any(script in code for script in SCRIPTS):
                for flag in re.findall(r"(?<!\S)--[a-z]\S+", code):
                    assert flag.partition("=")[0] in known, (document, code)
        for line in (line for block in blocks(document) if block.language == "bash" for line in block.commands()):
            names = [word.replace("./", "", 1) for word in line.split()]
            script = next((name for name in names if name in SCRIPTS), None)
            for word in names[names.index(script) :] if script else ():
                assert not word.startswith("--") or word.partition("=")[0] in flags(script), (document, line)


def test_every_flag_is_explained():
    rows = re.findall(r"^\| (`--.*?) \|", prose("docs/running.md") + prose("docs/engines.md"), re.M)
    explained = set(re.findall(r"--\w+", " ".join(rows)))
    of_flwr_run = {"--stream", "--run-config"}  # in the description of flower_app.py
    scripts = [name for name in SCRIPTS if name.endswith(".py")]
    assert set().union(*map(flags, scripts)) <= explained | of_flwr_run | {"--help"}


# The tables of faults, by how their rows begin, with the tests' marks: @pytest.mark.fault("killed client").
FAULTS = {
    "a client starts before the server": "early client",
    "a client is killed": "killed client",
    "the connection breaks": "short outage",
    "the network is gone": "long outage",
    "a client hangs": "late result",
    "the server crashes": "killed server",
    "the server gets a new address": "new address",
    "a client has another data set": "misfit",
    "two devices have the same": "misfit",
    "there is no internet": "no internet",
    "the training raises an error": "error in a fit",
    "a client sends nonsense": "bad result",
    "fewer than": "too few clients",
    "all clients of a round fail": "failed round",
    "the disk is full": "half a checkpoint",
    "`rounds.csv` cannot be written": "tables",
    "a run is resumed and one of its tables": "tables",
    "a name has characters": "output",
    "the server has another certificate": "certificates",
}


def test_every_fault_has_a_test():
    marks = {mark for path in ROOT.glob("tests/**/*.py") for mark in re.findall(r'fault\("(.+)"\)', path.read_text())}
    table = re.search(r"^\| when \| then \|\n.*\n((?:\|.*\n)+)", prose("docs/running.md"), re.M)[1]
    for row in table.splitlines():
        (mark,) = [mark for fault, mark in FAULTS.items() if row.startswith(f"| {fault}")]
        assert mark in marks, f"no test has the mark {mark!r}, for: {row}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_run_or_needs_hardware(document):
    for block in blocks(document):
        if block.language in ("bash", "python") and document in PAGES:
            known = rf"|needs a (Raspberry Pi|Jetson)|run by .*|{TERMINALS}|{WITH_ALL}"
            assert re.fullmatch(known, block.comment), block
        elif block.language in ("bash", "python"):
            assert re.fullmatch("needs a Jetson|run by .*", block.comment), block
        else:
            assert block.language in ("", "diff") and not block.comment, block
        if block.comment.startswith("run by "):
            runner = (ROOT / block.comment.replace("run by ", "", 1)).read_text()
            script = re.search(r"\w+\.(sh|py)", block.text)
            assert (script[0] if script else f'"{block.title}"') in runner, block
        for line in (
            block.commands() if block.language in ("bash", "") else ()
        ):  # pasted, into zsh and with blanks in paths
            assert not re.search(r"(^|\s)#", line), f"a comment in a command: {line}"
            assert not re.search(r'(?<!")\$(\(pwd\)|PWD)|`', line), f'"$(pwd)" needs its quotes: {line}'


def copy_project(folder: Path) -> None:
    """Copy the project as somebody gets it."""
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


@pytest.fixture
def copy(tmp_path, cifar10) -> Path:
    """The project, with both data sets already in its data folder."""
    folder = tmp_path / "embedded-devices"
    copy_project(folder)
    shutil.copytree(cifar10, folder / "data")
    copy_sample(folder / "data")
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """What it is like when the virtual environment is activated; the Hub cannot be reached."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture
def network(start) -> str:
    """The process number of a network namespace in which this machine has the documents' address."""
    link = f"ip link set lo up && ip link add net0 type veth peer name net1 && ip address add {ADDRESS}/24 dev net0"
    up = "ip link set net0 up && ip link set net1 up && ip route add default via 192.168.1.1 && echo ready"
    holder = start("--net", "sh", "-c", f"{link} && {up} && exec sleep 3600", python="unshare")
    holder.wait_for("ready")
    return str(holder.popen.pid)


def finish(processes: list) -> None:
    """Wait for the ends of a server and its clients."""
    for process in processes:
        assert process.exit_code() == 0, process.output
    outputs = [process.output for process in processes if "rounds done" in process.output]
    assert len(outputs) == min(1, len(processes))
    for output in outputs:
        rounds = re.findall(r"^round (\d+): (.*? failures), loss", output, re.M)
        assert {results for _, results in rounds} == {"2 results and 0 failures"}, output
        numbers = [int(number) for number, _ in rounds]  # a run that is resumed begins later
        assert numbers and numbers == [*range(numbers[0], numbers[-1] + 1)], output
        assert f"{numbers[-1]} of {numbers[-1]} rounds done" in output
    processes.clear()


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and the command ip")
def test_the_commands_work_word_for_word(start, copy, environment, network):
    def run(*command: str):
        return start("--target", network, "--net", *command, python="nsenter", cwd=copy, env=environment)

    (own_pictures,) = [block for block in blocks("docs/running.md") if "from PIL" in block.text]
    assert run("python", "-c", own_pictures.text).exit_code() == 0  # who reads the README has some
    running, num_federations = [], 0
    for block in blocks(*PAGES):
        if block.comment == TERMINALS:
            lines = block.commands()
            if any("server.py" in line for line in lines):
                finish(running)
                num_federations += 1
            running += [run("bash", "-c", line) for line in lines]
        elif block.language in ("bash", "python") and not block.comment:
            finish(running)
            command = ("bash", "-e", "-c") if block.language == "bash" else ("python", "-c")
            process = run(*command, block.text)
            assert process.exit_code() == 0, f"{block.text}\n{process.output}"
    finish(running)
    assert num_federations == 12
    logs = "".join(log.read_text() for log in copy.parent.glob("*.log"))
    assert f"clients connect with --server_address={ADDRESS}:8080" in logs
    own = "load_partition(Partitioning('mnist', Path('own_data')), 7)"
    client = run("python", "-c", f"from federation.data.partitions import *; print({own})")
    assert client.exit_code() == 0 and "Examples" in client.output, client.output
    same = run("python", "-c", SAME_PROBABILITIES)
    assert same.exit_code() == 0, same.output


def apply(diff: str, folder: Path) -> None:
    """Take out the lines with a minus and put in those with a plus; where that is has to be clear."""
    name, _, changes = diff.partition("\n")
    path = folder / name.replace("--- ", "", 1)
    text = path.read_text()
    for before, added in re.findall(r"((?:^[- ].*\n)+)((?:^\+.*\n)+)", changes, re.M):
        kept = re.sub(r"^-.*\n", "", before, flags=re.M)
        old, new = (re.sub(r"^.", "", lines, flags=re.M) for lines in (before, kept + added))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


CHANGES = {
    "Another model": ("--num_clients", 4),
    "Another data set": ("--mnist", "--data_dir", "data_fashion"),
    "Another strategy": ("--mnist",),
    "Differential privacy": ("--mnist",),
}


@pytest.mark.parametrize("title", CHANGES)
def test_what_to_change_next(start, copy, address, environment, title):
    diffs = {block.title: block.text for block in blocks(*PAGES) if block.language == "diff"}
    assert diffs.keys() == CHANGES.keys()
    apply(diffs[title], copy)
    copy_sample(copy / "data_fashion")
    common = "--server_address", address
    server = start("server.py", *common, "--rounds", 1, "--epochs", 1, "--results_dir", "results/new", cwd=copy)
    words = "client_pytorch.py", *common, *CHANGES[title], "--cid"
    clients = [start(*words, cid, cwd=copy, env=environment) for cid in (0, 1)]
    assert server.exit_code() == 0, server.output + clients[0].output
    assert "round 1: 2 results and 0 failures" in server.output
    assert [client.exit_code() for client in clients] == [0, 0], clients[0].output
    with np.load(copy / "results/new/model.npz") as file:
        model = list(file.values())
    if title == "Another model":
        assert sum(array.size for array in model) > 11e6
    if title == "Differential privacy":
        largest = max(model, key=np.size)
        assert np.std(largest) > 0.1  # noise of 0.15; without, 0.05


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and the command ip")
def test_a_deployment_word_for_word(start, copy, environment, network, tmp_path):
    """The laptop and both devices are this machine, where a second SuperNode needs another port."""
    environment = {**environment, "HOME": str(tmp_path)}

    def run(commands: str):
        words = ("--target", network, "--net", "bash", "-e", "-c", re.sub("^fl", "exec fl", commands, flags=re.M))
        return start(*words, python="nsenter", cwd=copy, env=environment)

    superlink, supernode, flwr_run = [
        block.text for block in blocks("docs/engines.md") if block.title == "A deployment" and block.language == "bash"
    ]
    running = [run(superlink)]
    running[0].wait_for("Application startup complete")
    another = supernode.replace("partition-id=0", "partition-id=1")
    running += [run(supernode), run(another.replace("--superlink", "--port 9095 --superlink"))]
    server = run(flwr_run)
    assert server.exit_code(2 * DEADLINE) == 0, server.output
    assert server.output.count("2 results and 0 failures") == 3 and "3 of 3 rounds done" in server.output
    for process in reversed(running):
        process.popen.terminate()
        process.exit_code()


@pytest.mark.slow
def test_the_requirements_install_as_the_readme_says(start, copy, tmp_path):
    (install,) = [block for block in blocks("README.md") if block.comment == WITH_ALL]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(Path(sys.base_prefix, "bin/python3"))
    script = f"{install.text}\npython server.py --help && python client_pytorch.py --help"
    process = start("-e", "-c", script, python="bash", cwd=copy, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    assert process.exit_code(1200) == 0, process.output
    assert "--min_num_clients" in process.output and "--cid" in process.output
