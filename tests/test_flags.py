"""Command lines of the real scripts: one plain sentence for a mistake, defaults in the help."""

from __future__ import annotations

import pytest

SCRIPTS = pytest.mark.parametrize("script", ["server.py", "flower_app.py", "client_pytorch.py", "client_tf.py"])


@SCRIPTS
def test_the_script_itself_exits_with_code_2(start, script):
    process = start(script, "--cid", "-1", "--rounds", "0")
    assert process.exit_code() == 2
    assert len(process.own_lines) == 1, process.output


@SCRIPTS
def test_help_tells_every_default(start, script):
    process = start(script, "--help")
    assert process.exit_code() == 0
    for option in process.output.split("\n  --")[1:]:
        assert option.startswith(("cid", "mnist", "evaluate_with")) or "default:" in " ".join(option.split()), option


def test_a_results_folder_that_cannot_be_made(start, address, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    process = start("server.py", "--server_address", address, "--results_dir", tmp_path / "file" / "results")
    assert process.exit_code() == 1
    assert "cannot write results" in process.output
    assert process.output.count("\n") == 1
