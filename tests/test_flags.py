"""Wrong command lines: exit code 2 and one plain sentence, before anything is loaded or connected."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from conftest import FRAMEWORKS
from processes import ROOT

CLIENT_MISTAKES = {
    "--cid -1": "argument --cid: must be a whole number, at least 0, not '-1'",
    "--cid 50": "argument --cid: must be from 0 to 49 (there are 50 partitions), not 50",
    "--cid x": "argument --cid: must be a whole number",
    "--cid 1.0": "argument --cid: must be a whole number",
    "--cid 5 --num_clients 5": "argument --cid: must be from 0 to 4 (there are 5 partitions), not 5",
    "--cid 0 --num_clients 0": "argument --num_clients: must be a whole number, at least 1",
    "--mnist": "the following arguments are required: --cid",
    "--cid 0 --minst": "unrecognized arguments: --minst",
    "--cid 0 --server_address 192.168.1.10": "argument --server_address: must look like 192.168.1.10:8080",
    "--cid 0 --server_address :8080": "argument --server_address: must look like",
    "--cid 0 --server_address host:99999": "argument --server_address: must look like",
    "--cid 0 --server_address http://host:8080": "argument --server_address: must look like",
    "--cid 0 --server_address fe80::1:8080": "argument --server_address: must look like",
    "--cid 0 --server_address 0.0.0.0:8080": "argument --server_address: 0.0.0.0:8080 is an address to listen on",
    "--cid 0 --alpha 0": "argument --alpha: must be a number from 0.01 to 1000000, not '0'",
    "--cid 0 --alpha -1": "argument --alpha: must be a number from 0.01 to 1000000, not '-1'",
    "--cid 0 --alpha 1e-9": "argument --alpha: must be a number from 0.01 to 1000000, not '1e-9'",
    "--cid 0 --alpha nan": "argument --alpha: must be a number from 0.01 to 1000000, not 'nan'",
    "--cid 0 --alpha inf": "argument --alpha: must be a number from 0.01 to 1000000, not 'inf'",
    "--cid 0 --alpha even": "argument --alpha: must be a number from 0.01 to 1000000, not 'even'",
    "--cid 0 --retry_for 0": "argument --retry_for: must be a number of seconds above 0, not '0'",
    "--cid 0 --meter 192.168.1.20": "argument --meter: must be like http://192.168.1.20, not '192.168.1.20'",
    "--cid 0 --token_file nowhere": "argument --token_file: cannot read nowhere: No such file or directory",
    "--cid 0 --token_file README.md": "argument --token_file: cannot use README.md: it contains no token (one word",
    "--cid 0 --root_certificate nowhere": "argument --root_certificate: cannot read nowhere: No such file",
    "--cid 0 --root_certificate README.md": "argument --root_certificate: cannot use README.md: it contains no certifi",
}
SERVER_MISTAKES = {
    "--rounds 0": "argument --rounds: must be a whole number, at least 1, not '0'",
    "--rounds many": "argument --rounds: must be a whole number",
    "--sample_fraction 0": "argument --sample_fraction: must be a number above 0, at most 1, not '0'",
    "--sample_fraction 1.5": "argument --sample_fraction: must be a number above 0, at most 1",
    "--sample_fraction nan": "argument --sample_fraction: must be a number above 0, at most 1",
    "--min_num_clients 0": "argument --min_num_clients: must be a whole number, at least 1",
    "--epochs 0": "argument --epochs: must be a whole number, at least 1",
    "--batch_size 0": "argument --batch_size: must be a whole number, at least 1",
    "--server_address 8080": "argument --server_address: must look like",
    "--server_address 192.0.2.1:8080": "argument --server_address: cannot listen on 192.0.2.1:8080",
    "--evaluate_with jax": "argument --evaluate_with: invalid choice: 'jax'",
    "--mnist": "argument --mnist: only matters to --evaluate_with",
    "--round 3": "unrecognized arguments: --round 3",
    "--round_timeout -1": "argument --round_timeout: must be a number of seconds above 0, not '-1'",
    "--wait_timeout soon": "argument --wait_timeout: must be a number of seconds above 0, not 'soon'",
    "--wait_timeout inf": "argument --wait_timeout: must be a number of seconds above 0, not 'inf'",
    "--certificates nowhere": "argument --certificates: cannot read nowhere/ca.crt: No such file or directory",
    "--token_file nowhere": "argument --token_file: cannot read nowhere",
    "--resume nowhere": "argument --resume: cannot read nowhere/model.npz: No such file or directory",
    "--resume tests --results_dir x": "argument --results_dir: not allowed with argument --resume",
}
CASES = [(f"client_{framework}.py", *mistake) for framework in FRAMEWORKS for mistake in CLIENT_MISTAKES.items()]
CASES += [("server.py", *mistake) for mistake in SERVER_MISTAKES.items()]


# Calls main() of a script with each of the command lines and prints the exit codes and what came on stderr.
CALL_MAIN = """
import contextlib, importlib, io, json, sys
script, *lines = sys.argv[1:]
module = importlib.import_module(script[:-3])
answers = {}
for line in lines:
    sys.argv = [script, *line.split()]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            module.main()
        except SystemExit as end:
            answers[line] = (end.code, stderr.getvalue())
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, tuple[int, str]]]:
    """What each script answers to its mistakes, from one process a script: TensorFlow takes seconds to import."""
    answers = {}
    for script in sorted({case[0] for case in CASES}):
        lines = [line for name, line, _ in CASES if name == script]
        command = [sys.executable, "-c", CALL_MAIN, script, *lines]
        process = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, check=True)
        answers[script] = json.loads(process.stdout)
    return answers


@pytest.mark.parametrize(("script", "line", "sentence"), CASES)
def test_a_mistake_on_the_command_line(answers, script, line, sentence):
    code, stderr = answers[script][line]
    assert code == 2
    assert stderr.startswith(f"{script}: {sentence}"), stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["server.py", "flower_app.py", "client_pytorch.py", "client_tf.py"])
def test_the_script_itself_exits_with_code_2(start, script):
    process = start(script, "--cid", "-1", "--rounds", "0")
    assert process.exit_code() == 2
    assert len(process.own_lines) == 1, process.output


@pytest.mark.parametrize("script", ["server.py", "flower_app.py", "client_pytorch.py", "client_tf.py"])
def test_help_tells_every_default(start, script):
    process = start(script, "--help")
    assert process.exit_code() == 0
    for option in process.output.split("\n  --")[1:]:
        assert option.startswith(("cid", "mnist", "evaluate_with")) or "default:" in " ".join(option.split()), option


def test_a_port_in_use_is_refused(start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = start("server.py", "--server_address", f"127.0.0.1:{port}")
        assert process.exit_code() == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in process.output
    assert process.output.count("\n") == 1


def test_results_of_another_run_are_not_touched(start, address, tmp_path):
    (tmp_path / "rounds.csv").write_text("round\n1\n")
    process = start("server.py", "--server_address", address, "--results_dir", tmp_path)
    assert process.exit_code() == 2
    assert "holds the results of another run" in process.output
    assert (tmp_path / "rounds.csv").read_text() == "round\n1\n"


def test_a_results_folder_that_cannot_be_made(start, address, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    process = start("server.py", "--server_address", address, "--results_dir", tmp_path / "file" / "results")
    assert process.exit_code() == 1
    assert "server.py: cannot write results" in process.output
    assert process.output.count("\n") == 1
