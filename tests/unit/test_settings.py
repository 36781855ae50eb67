"""The settings: what the command lines of clients and server say, as typed values."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from federation.client.flags import ClientSettings, parse_client
from federation.client.threads import Threads
from federation.data.partitions import Partitioning
from federation.flags import ArgumentParser, whole_number
from federation.results import checkpoint
from federation.results.checkpoint import Checkpoint
from federation.results.run_file import RunFile
from federation.server.fit_config import AUTO, FitBound
from federation.server.flags import RunSettings, ServerSettings, parse_run
from federation.wire.addresses import Address, server_address

import pytest
from fakes import MODEL, SOMEBODY, self_signed
from processes import ROOT, free_address

import server


def client_settings(monkeypatch, *words: object) -> ClientSettings:
    """What `parse_client` makes of a command line, with the flags that both scripts declare themselves."""
    monkeypatch.setattr(sys, "argv", ["client.py", *map(str, words)])
    parser = ArgumentParser("A client.")
    parser.add_argument("--cid", type=whole_number(0), required=True)
    parser.add_argument("--server_address", type=server_address)
    parser.add_argument("--mnist", action="store_true")
    args, settings = parse_client(parser, 50)
    assert args.cid == settings.cid
    return settings


def server_settings(monkeypatch, *words: object) -> ServerSettings:
    """What server.py makes of a command line."""
    words = ("--server_address", free_address(), *words)
    monkeypatch.setattr(sys, "argv", ["server.py", *map(str, words)])
    served = []
    monkeypatch.setattr(server, "serve", lambda strategy, settings: served.append(settings))
    server.main()
    return served[0]


def run_settings(*words: object) -> RunSettings:
    """What `parse_run` makes of a command line, with the flags that flower_app.py shares with server.py."""
    parser = ArgumentParser("An engine.", prog="flower_app.py")
    parser.add_argument("--min_num_clients", type=whole_number(1), default=2)
    server.add_flags(parser)
    return parse_run(parser, [*map(str, words)])[1]


def mistake(capsys, call, *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        call(*words)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_client_that_nobody_starts_has_the_same_settings(monkeypatch):
    """In Flower's engines, a client has no command line: what it does not say there is what its flags say here."""
    started = client_settings(monkeypatch, "--cid", 3)
    assert ClientSettings(started.partitioning, started.cid) == started


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    """A shell does not expand it in `--flag=~/file`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("0123456789abcdef")
    client = client_settings(monkeypatch, "--cid=0", "--data_dir=~/data", "--token_file=~/token")
    assert (client.partitioning.data_dir, client.token) == (tmp_path / "data", b"0123456789abcdef")
    assert server_settings(monkeypatch, "--results_dir=~/new").run.results_dir == tmp_path / "new"


def test_a_client_with_all_flags(monkeypatch, tmp_path):
    certificate, _ = self_signed()
    (tmp_path / "ca.crt").write_bytes(certificate)
    (tmp_path / "token").write_text(" 0123456789abcdef\n")
    words = ["--cid", 9, "--num_clients", 10, "--mnist", "--server_address", "[fe80::1]:80", "--data_dir", "elsewhere"]
    words += ["--alpha", "3e-1"]
    words += ["--threads", 2, "--root_certificate", tmp_path / "ca.crt"]
    words += ["--token_file", tmp_path / "token", "--retry_for", 1.5]
    assert client_settings(monkeypatch, *words) == ClientSettings(
        partitioning=Partitioning("mnist", Path("elsewhere"), 10, alpha=0.3),
        cid=9,
        server_address=Address("fe80::1", 80),
        threads=Threads(2),
        root_certificate=certificate,
        token=b"0123456789abcdef",
        retry_for=1.5,
    )


def test_a_server_with_all_flags(monkeypatch, tmp_path):
    certificate, key = self_signed()
    for name, content in (("ca.crt", certificate), ("server.pem", certificate), ("server.key", key)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "token").write_text("0123456789abcdef")
    words = ["--rounds", 7, "--min_num_clients", 4, "--round_timeout", 60, "--wait_timeout", 0.5]
    words += ["--seed", 11, "--fit_seconds", 2.5, "--half_precision", "--every", 20, "--plain"]
    words += ["--no_announce"]
    words += ["--results_dir", "here", "--certificates", tmp_path, "--token_file", tmp_path / "token"]
    settings = server_settings(monkeypatch, *words)
    run = RunSettings(
        num_rounds=7,
        min_num_clients=4,
        round_timeout=60.0,
        wait_timeout=0.5,
        results_dir=Path("here"),
        resumed=None,
        seed=11,
        fit_bound=FitBound(2.5),
        half_precision=True,
        every=20.0,
        flags=settings.run.flags,
    )
    certificates, token = (certificate, certificate, key), b"0123456789abcdef"
    assert settings == ServerSettings(run, settings.server_address, True, certificates, token, announce=False)


def test_a_run_that_is_no_servers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["flwr-serverapp", "--insecure"])  # which is not for us
    settings = run_settings("--rounds", 7, "--seed", 11, "--fit_seconds", "auto", "--half_precision", "--every", 20)
    assert settings == RunSettings(
        num_rounds=7,
        min_num_clients=2,
        round_timeout=3600.0,
        wait_timeout=3600.0,
        results_dir=settings.results_dir,
        resumed=None,
        seed=11,
        fit_bound=AUTO,
        half_precision=True,
        every=20.0,
        flags=settings.flags,
    )
    assert settings.flags["rounds"] == 7 and not {"server_address", "certificates", "token"} & settings.flags.keys()
    checkpoint.save(tmp_path, Checkpoint(MODEL, 2, 1, 3, 0, SOMEBODY))
    RunFile(tmp_path, 7, {}).save()
    resumed = run_settings("--resume", tmp_path)
    assert (resumed.results_dir, resumed.resumed.round, resumed.seed) == (tmp_path, 2, 7)
    message = mistake(capsys, run_settings, "--server_address", "127.0.0.1:8080")
    assert message.startswith("flower_app.py: unrecognized arguments: --server_address")


def test_results_are_resumed_and_never_overwritten(monkeypatch, tmp_path, capsys):
    assert server_settings(monkeypatch, "--results_dir", tmp_path).run.results_dir == tmp_path
    assert server_settings(monkeypatch, "--resume", tmp_path).run.resumed == Checkpoint()  # the first is still to come
    (tmp_path / "rounds.csv").touch()
    message = mistake(capsys, server_settings, monkeypatch, "--results_dir", tmp_path)
    assert "contains the results of another run (--resume continues it)" in message
    checkpoint.save(tmp_path, Checkpoint(MODEL, 2, 1, 3, 0, SOMEBODY))
    settings = server_settings(monkeypatch, "--resume", tmp_path)
    assert settings.run.results_dir == tmp_path
    assert dataclasses.replace(settings.run.resumed, model=[]) == Checkpoint([], 2, 1, 3, 0, SOMEBODY)
    assert [array.tolist() for array in settings.run.resumed.model] == [array.tolist() for array in MODEL]
    (tmp_path / checkpoint.NAME).write_bytes(b"PK")
    message = mistake(capsys, server_settings, monkeypatch, "--resume", tmp_path)
    assert message.startswith(f"server.py: argument --resume: cannot use {tmp_path}: its model.npz is not a checkpoint")


def test_the_seed_of_a_run_is_that_of_its_beginning(monkeypatch, capsys, tmp_path):
    drawn = {server_settings(monkeypatch).run.seed for _ in range(3)}
    assert len(drawn) == 3 and all(0 <= seed < 2**32 for seed in drawn)
    RunFile(tmp_path, 7, {}).save()
    assert server_settings(monkeypatch, "--resume", tmp_path).run.seed == 7
    assert server_settings(monkeypatch, "--resume", tmp_path, "--seed", 7).run.seed == 7
    message = mistake(capsys, server_settings, monkeypatch, "--resume", tmp_path, "--seed", 8)
    assert message.startswith(f"server.py: argument --seed: the run in {tmp_path} has seed 7")
    (tmp_path / "run.json").unlink()  # of a run before there were seeds
    assert server_settings(monkeypatch, "--resume", tmp_path, "--seed", 8).run.seed == 8


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--cid -1", "--cid: must be a whole number, at least 0, not '-1'"),
        ("--cid 1.0", "--cid: must be a whole number, at least 0, not '1.0'"),
        ("--cid 5 --num_clients 5", "--cid: must be from 0 to 4 (there are 5 partitions), not 5"),
        ("--server_address 192.168.1.10", "--server_address: must look like 192.168.1.10:8080"),
        ("--server_address 0.0.0.0:8080", "--server_address: 0.0.0.0:8080 is an address to listen on"),
        ("--alpha 1e-9", "--alpha: must be a number from 0.01 to 1000000, not '1e-9'"),
        ("--data_dir ~nobody-of-this-name/x", "--data_dir: there is no home folder for the ~ in"),
        ("--meter 192.168.1.20", "--meter: must be like http://192.168.1.20, not '192.168.1.20'"),
        ("--token_file README.md", "--token_file: cannot use README.md: it contains no token (one word"),
        ("--root_certificate README.md", "--root_certificate: cannot use README.md: it contains no certifi"),
    ],
)
def test_mistakes_of_a_client(monkeypatch, capsys, line, sentence):
    monkeypatch.chdir(ROOT)
    message = mistake(capsys, client_settings, monkeypatch, "--cid", 0, *line.split())
    assert message.startswith(f"client.py: argument {sentence}") and message.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--sample_fraction nan", "--sample_fraction: must be a number above 0, at most 1, not 'nan'"),
        ("--server_address 192.0.2.1:8080", "--server_address: cannot listen on 192.0.2.1:8080"),
        ("--mnist", "--mnist: needs --evaluate_with;"),
        ("--wait_timeout inf", "--wait_timeout: must be a number of seconds above 0, not 'inf'"),
        ("--fit_seconds Auto", "--fit_seconds: must be a number of seconds above 0, not 'Auto'"),
        ("--seed 4294967296", "--seed: must be a whole number, from 0 to 4294967295, not '4294967296'"),
        ("--certificates nowhere", "--certificates: cannot read nowhere/ca.crt: No such file or directory"),
        ("--resume nowhere", "--resume: cannot read nowhere/model.npz: No such file or directory"),
        ("--resume tests --results_dir x", "--results_dir: not allowed with argument --resume"),
    ],
)
def test_mistakes_of_a_server(monkeypatch, capsys, line, sentence):
    monkeypatch.chdir(ROOT)
    message = mistake(capsys, server_settings, monkeypatch, *line.split())
    assert message.startswith(f"server.py: argument {sentence}") and message.count("\n") == 1
