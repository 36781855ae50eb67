"""The playbooks in fleet/, as far as they need no boards: what they refuse. See test_boards.py for the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from processes import ROOT

EXAMPLE = yaml.safe_load((ROOT / "fleet/boards.example.yml").read_text())["all"]["vars"]


def write_inventory(path: Path, raspberry_pi: dict, jetson: dict | None = None, **settings: Any) -> None:
    children = {"raspberry_pi": {"hosts": raspberry_pi}, "jetson": {"hosts": jetson or {}}}
    path.write_text(yaml.safe_dump({"all": {"vars": {**EXAMPLE, **settings}, "children": children}}))


def refused(*words: object, cwd: Path = ROOT, **environment: str) -> list[str]:
    """Return the sentences with which a playbook ends before it has touched a board."""
    command = [Path(sys.executable).parent / "ansible-playbook", *map(str, words)]
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Gathering Facts" not in result.stdout
    return re.findall(r"Action failed: (.*)", result.stdout + result.stderr)


def test_no_boards(tmp_path):
    (sentence,) = refused("fleet/setup.yml", "--inventory", tmp_path / "none.yml")
    assert sentence.startswith("no boards: cp fleet/boards.example.yml fleet/boards.yml")


def test_ansible_cfg_is_not_read(tmp_path):
    (tmp_path / "other.cfg").touch()
    for where in ({"cwd": ROOT / "fleet"}, {"ANSIBLE_CONFIG": str(tmp_path / "other.cfg")}):
        (sentence,) = refused(ROOT / "fleet/start.yml", **where)
        assert "ANSIBLE_CONFIG=ansible.cfg ansible-playbook -i fleet/boards.yml fleet/setup.yml" in sentence


def test_mistakes_in_the_inventory(tmp_path):
    """Each of these has one; a mistake is named before the next is looked for."""
    (tmp_path / "ca.key").write_text("-----BEGIN PRIVATE KEY-----\n")
    inventory = tmp_path / "boards.yml"
    mistakes = {
        "framework must be pytorch, tf or onnx, not jax": {"framework": "jax"},
        "a needs a cid from 0 to 49": {"cid": 50},
        "a: an address must be HOST:PORT, such as 192.168.1.10:8080, not 'laptop'": {"superlink_address": "laptop"},
        f"{tmp_path}/ca.key is a private key, which stays on this laptop: use ca.crt": {
            "certificate": f"{tmp_path}/ca.key"
        },
        "remove ansible_become from the inventory": {"ansible_become": True},
        "a: teach needs framework onnx, and client_flags with --photos FOLDER": {"teach": True, "framework": "onnx"},
        "a: SuperNodes run on Raspberry Pis only": {"superlink_address": "laptop:80", "client_flags": "--threads 2"},
        "a and b have the same cid, 1": {"cid": 1},
    }
    for sentence, settings in mistakes.items():
        write_inventory(inventory, {"a": {"cid": 0, **settings}, "b": {"cid": 1}})
        assert refused("fleet/setup.yml", "--inventory", inventory)[0].startswith(sentence)
    write_inventory(inventory, {}, {"a": {"cid": 0}})
    (sentence,) = refused("fleet/setup.yml", "--inventory", inventory)
    assert sentence == "a: an address must be HOST:PORT, such as 192.168.1.10:8080, not ''"
    write_inventory(inventory, {}, {"a": {"cid": 0}}, framework="onnx")
    assert refused("fleet/setup.yml", "--inventory", inventory) == [
        "a: onnx has no image and uses no GPU: put this board into the group raspberry_pi"
    ]
    write_inventory(inventory, {"a": {"cid": 0}}, {"a": {}})
    assert refused("fleet/setup.yml", "--inventory", inventory) == [
        "a must be in one of the groups raspberry_pi and jetson"
    ]
    inventory.write_text("all: {children: {raspberry_pi: {hosts: {a: {cid: 0, folder: x}}}}}")
    (sentence,) = refused("fleet/setup.yml", "--inventory", inventory)
    assert sentence.startswith("fleet/boards.yml lacks ansible_user, server_address, framework")
