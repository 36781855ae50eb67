"""The sources: what a reader relies on. Who may import whom is in pyproject.toml, for import-linter."""

from __future__ import annotations

import ast
import functools
import sys

from federation.data import partitions

import pytest
from processes import ROOT, free_address

import server

CLIENTS = "client_pytorch.py", "client_tf.py"
SCRIPTS = *CLIENTS, "client_onnx.py", "teach.py", "server.py", "flower_app.py"
ROOMS = "data", "wire", "client", "server", "results", "engine", "teach"


@functools.lru_cache(maxsize=None)
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def outline(script: str) -> list[str]:
    """The names that a script defines, classes with their methods, in order."""
    names = []
    for node in tree(script).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
            names += [f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)]
    return names


def source_of(script: str, name: str) -> str:
    text = (ROOT / script).read_text()
    node = next(node for node in ast.parse(text).body if getattr(node, "name", None) == name)
    return ast.get_source_segment(text, node)


def constants(script: str) -> dict[str, object]:
    """The constants that a script sets to plain values, one or several in a line."""
    values = {}
    for node in tree(script).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # it is computed
                continue
            names = ast.unparse(node.targets[0]).strip("()").split(", ")
            values.update(zip(names, value if len(names) > 1 else [value]))
    return values


def test_both_clients_have_the_same_rooms_in_the_same_order():
    common = set(outline("client_pytorch.py")) & set(outline("client_tf.py"))
    rooms = [name for name in outline("client_tf.py") if name in common]
    assert rooms == [name for name in outline("client_pytorch.py") if name in common]
    assert rooms == [
        "small_cnn", "mobilenet", "build_model", "augment", "one_cycle", "train", "test", "get_parameters",
        "set_parameters", "FlowerClient", "FlowerClient.__init__", "FlowerClient.get_parameters", "FlowerClient.fit",
        "FlowerClient.evaluate", "make_client", "main",
    ]  # fmt: skip


def test_the_client_without_steps_of_training_has_those_that_are_left():
    rooms = [name for name in outline("client_onnx.py") if name in outline("client_pytorch.py")]
    assert rooms == [
        "build_model", "test", "get_parameters", "set_parameters", "FlowerClient", "FlowerClient.__init__",
        "FlowerClient.get_parameters", "FlowerClient.fit", "FlowerClient.evaluate", "make_client", "main",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["one_cycle", "FlowerClient", "main"])
def test_what_both_scripts_have_in_common(name):
    assert source_of("client_pytorch.py", name) == source_of("client_tf.py", name)


def test_both_clients_have_the_same_constants():
    names = "NUM_CLIENTS", "EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "TEST_BATCH_SIZE"
    first, second = ({name: constants(script)[name] for name in names} for script in CLIENTS)
    assert first == second


@pytest.mark.parametrize("script", [*CLIENTS, "client_onnx.py"])
def test_the_number_of_partitions_is_the_same_everywhere(script):
    assert constants(script)["NUM_CLIENTS"] == partitions.NUM_CLIENTS


@pytest.mark.parametrize("script", CLIENTS)
def test_a_client_trains_by_default_as_the_server_says_by_default(script, monkeypatch):
    strategies = []
    monkeypatch.setattr(sys, "argv", ["server.py", "--server_address", free_address()])
    monkeypatch.setattr(server, "serve", lambda strategy, settings: strategies.append(strategy))
    server.main()
    config = strategies[0].on_fit_config_fn(1)
    assert config == {
        "server_round": 1,
        "epochs": constants(script)["EPOCHS"],
        "batch_size": constants(script)["BATCH_SIZE"],
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_read_in_one_go(script):
    most = 120 if script == "flower_app.py" else 230
    assert len((ROOT / script).read_text().splitlines()) <= most


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_can_be_read_in_an_hour(room):
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "federation" / room).glob("*.py")}
    assert sum(lines.values()) < 1000, lines


def test_a_new_file_has_to_find_its_room():
    loose = {path.name for path in (ROOT / "federation").glob("*.py")} - {"__init__.py"}
    assert loose == {"files.py", "flags.py", "light_import.py"}
