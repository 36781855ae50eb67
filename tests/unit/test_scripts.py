"""The sources: what a reader relies on in the scripts, and who may import whom in federation/."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

from federation import partitions

import pytest
from processes import ROOT, free_address

import server

CLIENTS = "client_pytorch.py", "client_tf.py"
SCRIPTS = *CLIENTS, "server.py", "flower_app.py"
# Who may know of whom. The files beside the rooms, "federation" itself, know of no room.
ROOMS = {
    "client": {"device"},
    "server": set(),
    "device": set(),
    "engine": {"client", "server", "device"},
    "federation": set(),
}
FEDERATION = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("federation/**/*.py"))


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


def imported_modules(name: str, nodes=None) -> dict[str, list[str]]:
    """The modules that a file imports anywhere, or in `nodes`, and what it takes from each of them."""
    modules: dict[str, list[str]] = {}
    for node in ast.walk(tree(name)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules.setdefault(alias.name, [])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
            names = [alias.name for alias in node.names]
            modules.setdefault(node.module, []).extend(names)
            for part in names:  # `from federation.server import rounds` imports federation.server.rounds
                if (ROOT / node.module.replace(".", "/") / f"{part}.py").exists():
                    modules.setdefault(f"{node.module}.{part}", [])
                if (ROOT / node.module.replace(".", "/") / part / "__init__.py").exists():
                    modules.setdefault(f"{node.module}.{part}", [])
    return modules


def at_import(node: ast.AST):
    """Yield what is run when a file is imported: all but the insides of functions and of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def test_both_clients_have_the_same_rooms_in_the_same_order():
    common = set(outline("client_pytorch.py")) & set(outline("client_tf.py"))
    rooms = [name for name in outline("client_tf.py") if name in common]
    assert rooms == [name for name in outline("client_pytorch.py") if name in common]
    assert rooms == [
        "small_cnn", "mobilenet", "build_model", "augment", "one_cycle", "train", "test", "get_parameters",
        "set_parameters", "FlowerClient", "FlowerClient.__init__", "FlowerClient.get_parameters", "FlowerClient.fit",
        "FlowerClient.evaluate", "make_client", "main",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["one_cycle", "FlowerClient", "main"])
def test_what_both_scripts_have_in_common(name):
    assert source_of("client_pytorch.py", name) == source_of("client_tf.py", name)


def test_both_clients_have_the_same_constants():
    names = "NUM_CLIENTS", "EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "TEST_BATCH_SIZE"
    first, second = ({name: constants(script)[name] for name in names} for script in CLIENTS)
    assert first == second


@pytest.mark.parametrize("script", CLIENTS)
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


@pytest.mark.parametrize("rooms", [["client"], ["server"], ["engine", "device"]])
def test_what_belongs_together_can_be_read_in_an_hour(rooms):
    paths = [path for room in rooms for path in (ROOT / "federation" / room).glob("*.py")]
    lines = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert len(lines) > 5
    assert sum(lines.values()) < 1000, lines


def test_every_folder_is_a_room():
    assert {Path(name).parent.name for name in FEDERATION} == ROOMS.keys()


@pytest.mark.parametrize("name", FEDERATION)
def test_a_room_knows_only_those_below_it(name):
    room = Path(name).parent.name
    for module in imported_modules(name):
        top, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if top == "federation" and other in ROOMS and other != room:
            assert other in ROOMS[room], f"{name} imports {module}"


@pytest.mark.parametrize("name", FEDERATION)
def test_federation_imports_no_script(name):
    scripts = {Path(script).stem for script in SCRIPTS}
    assert scripts.isdisjoint(imported_modules(name))


@pytest.mark.parametrize("name", [*SCRIPTS, *FEDERATION])
def test_what_begins_with_an_underscore_stays_in_its_file(name):
    own = {module: names for module, names in imported_modules(name).items() if module.split(".")[0] == "federation"}
    for module, names in own.items():
        assert not [part for part in names if part.startswith("_")], f"{name} imports them from {module}"
    as_names = {module.rpartition(".")[2] for module in own if (ROOT / f"{module.replace('.', '/')}.py").exists()}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in as_names:
            assert not node.attr.startswith("_"), f"{name}, line {node.lineno}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("name", [*FEDERATION, "server.py", "flower_app.py"])
def test_importing_federation_imports_no_framework(name):
    heavy = {"torch", "torchvision", "tensorflow", "keras", "matplotlib", "datasets", "huggingface_hub", "ray"}
    modules = imported_modules(name, at_import(tree(name)))
    assert heavy.isdisjoint(module.split(".")[0] for module in modules)


@pytest.mark.parametrize("script", CLIENTS)
def test_a_client_imports_the_server_for_nothing(script):
    unwanted = "federation.server", "federation.engine"
    assert not [module for module in imported_modules(script) if module.startswith(unwanted)]
