"""The settings: what the command lines of clients and server say, as typed values."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

from federation.client.flags import ClientSettings, parse_client
from federation.client.threads import Threads
from federation.data.partitions import Partition
from federation.flags import ArgumentParser, whole_number
from federation.results import checkpoint
from federation.results.checkpoint import Checkpoint
from federation.results.run_file import RunFile
from federation.server.flags import RunSettings, ServerSettings, parse_run
from federation.wire.addresses import server_address

import pytest
from fakes import MODEL, SOMEBODY, self_signed
from processes import free_address

import server


def client_settings(monkeypatch, *words: object) -> ClientSettings:
    """What `parse_client` makes of a command line, with the flags that both scripts declare themselves."""
    monkeypatch.setattr(sys, "argv", ["client.py", *map(str, words)])
    parser = ArgumentParser("A client.")
    parser.add_argument("--cid", type=whole_number(0), required=True)
    parser.add_argument("--server_address", type=server_address, default="127.0.0.1:8080")
    parser.add_argument("--mnist", action="store_true")
    args, settings = parse_client(parser, 50)
    assert args.cid == settings.partition.cid
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


def test_a_client_without_flags(monkeypatch):
    assert client_settings(monkeypatch, "--cid", 3) == ClientSettings(
        partition=Partition("cifar10", 3, 50, Path("data"), alpha=None),
        server_address="127.0.0.1:8080",
        threads=Threads(None),
        root_certificate=None,
        token=None,
        retry_for=math.inf,
        plug=None,
    )


def test_a_client_that_nobody_starts_has_the_same_settings(monkeypatch):
    """In Flower's engines, a client has no command line: what it does not say there is what its flags say here."""
    started = client_settings(monkeypatch, "--cid", 3)
    assert ClientSettings(started.partition, server_address=started.server_address) == started


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    """A shell does not expand it in `--flag=~/file`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    certificate, key = self_signed()
    for name, content in {"ca.crt": certificate, "server.pem": certificate, "server.key": key}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "token").write_text("0123456789abcdef")
    checkpoint.save(tmp_path, Checkpoint(MODEL, round=1))
    words = "--cid=0", "--data_dir=~/data", "--token_file=~/token", "--root_certificate=~/ca.crt"
    client = client_settings(monkeypatch, *words)
    assert client.partition.data_dir == tmp_path / "data"
    assert (client.token, client.root_certificate) == (b"0123456789abcdef", certificate)
    certified = server_settings(monkeypatch, "--results_dir=~/new", "--certificates=~", "--token_file=~/token")
    assert certified.results_dir == tmp_path / "new"
    assert certified.certificates == (certificate, certificate, key)
    resumed = server_settings(monkeypatch, "--resume=~/")
    assert resumed.results_dir == tmp_path and resumed.resumed.round == 1


@pytest.mark.parametrize("flag", ["--data_dir", "--token_file", "--root_certificate"])
def test_the_home_folder_of_nobody(monkeypatch, capsys, flag):
    message = mistake(capsys, client_settings, monkeypatch, "--cid=0", f"{flag}=~nobody-of-this-name/x")
    assert message.startswith(f"client.py: argument {flag}: there is no home folder for the ~ in")


def test_a_client_with_all_flags(monkeypatch, tmp_path):
    certificate, _ = self_signed()
    (tmp_path / "ca.crt").write_bytes(certificate)
    (tmp_path / "token").write_text(" 0123456789abcdef\n")
    words = ["--cid", 9, "--num_clients", 10, "--mnist", "--server_address", "[fe80::1]:80", "--data_dir", "elsewhere"]
    words += ["--alpha", "3e-1"]
    words += ["--threads", 2, "--root_certificate", tmp_path / "ca.crt"]
    words += ["--token_file", tmp_path / "token", "--retry_for", 1.5]
    assert client_settings(monkeypatch, *words) == ClientSettings(
        partition=Partition("mnist", 9, 10, Path("elsewhere"), alpha=0.3),
        server_address="[fe80::1]:80",
        threads=Threads(2),
        root_certificate=certificate,
        token=b"0123456789abcdef",
        retry_for=1.5,
    )


def test_a_server_without_flags(monkeypatch):
    settings = server_settings(monkeypatch)
    assert settings.server_address.startswith("127.0.0.1:")  # the default's port may be in use here
    assert settings.results_dir.parent == Path("results")
    assert settings == ServerSettings(
        num_rounds=3,
        min_num_clients=2,
        server_address=settings.server_address,
        round_timeout=3600.0,
        wait_timeout=3600.0,
        results_dir=settings.results_dir,
        resumed=None,
        seed=settings.seed,
        fit_seconds=None,
        half_precision=False,
        plain=False,
        flags=settings.flags,
        certificates=None,
        token=None,
    )


def test_a_server_with_all_flags(monkeypatch, tmp_path):
    certificate, key = self_signed()
    for name, content in (("ca.crt", certificate), ("server.pem", certificate), ("server.key", key)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "token").write_text("0123456789abcdef")
    words = ["--rounds", 7, "--min_num_clients", 4, "--round_timeout", 60, "--wait_timeout", 0.5]
    words += ["--seed", 11, "--fit_seconds", 2.5, "--half_precision", "--plain"]
    words += ["--results_dir", "here", "--certificates", tmp_path, "--token_file", tmp_path / "token"]
    settings = server_settings(monkeypatch, *words)
    assert settings == ServerSettings(
        num_rounds=7,
        min_num_clients=4,
        server_address=settings.server_address,
        round_timeout=60.0,
        wait_timeout=0.5,
        results_dir=Path("here"),
        resumed=None,
        seed=11,
        fit_seconds=2.5,
        half_precision=True,
        plain=True,
        flags=settings.flags,
        certificates=(certificate, certificate, key),
        token=b"0123456789abcdef",
    )


def test_a_run_that_is_no_servers(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["flwr-serverapp", "--insecure"])  # which is not for us
    settings = run_settings("--rounds", 7, "--seed", 11, "--fit_seconds", "auto", "--half_precision")
    assert settings == RunSettings(
        num_rounds=7,
        min_num_clients=2,
        round_timeout=3600.0,
        wait_timeout=3600.0,
        results_dir=settings.results_dir,
        resumed=None,
        seed=11,
        fit_seconds="auto",
        half_precision=True,
        flags=settings.flags,
    )
    assert settings.flags["rounds"] == 7 and not {"server_address", "certificates", "token"} & settings.flags.keys()
    checkpoint.save(tmp_path, Checkpoint(MODEL, 2, 1, 3, 0, SOMEBODY))
    RunFile(tmp_path, 7, {}).save()
    resumed = run_settings("--resume", tmp_path)
    assert (resumed.results_dir, resumed.resumed.round, resumed.seed) == (tmp_path, 2, 7)
    message = mistake(capsys, run_settings, "--server_address", "127.0.0.1:8080")
    assert message.startswith("flower_app.py: unrecognized arguments: --server_address")


def test_resume_brings_the_checkpoint(monkeypatch, tmp_path):
    checkpoint.save(tmp_path, Checkpoint(MODEL, 2, 1, 3, 0, SOMEBODY))
    (tmp_path / "rounds.csv").touch()
    settings = server_settings(monkeypatch, "--resume", tmp_path)
    assert settings.results_dir == tmp_path
    assert dataclasses.replace(settings.resumed, model=[]) == Checkpoint([], 2, 1, 3, 0, SOMEBODY)
    assert [array.tolist() for array in settings.resumed.model] == [array.tolist() for array in MODEL]


def test_resume_before_the_first_checkpoint(monkeypatch, tmp_path):
    settings = server_settings(monkeypatch, "--resume", tmp_path)
    assert settings.resumed == Checkpoint() and settings.results_dir == tmp_path


def test_resume_of_what_is_damaged(monkeypatch, tmp_path, capsys):
    (tmp_path / checkpoint.NAME).write_bytes(b"PK")
    message = mistake(capsys, server_settings, monkeypatch, "--resume", tmp_path)
    assert message.startswith(f"server.py: argument --resume: {tmp_path} is of no use: its model.npz is no checkpoint")


def test_results_are_never_overwritten(monkeypatch, tmp_path, capsys):
    assert server_settings(monkeypatch, "--results_dir", tmp_path).results_dir == tmp_path
    (tmp_path / "rounds.csv").touch()
    message = mistake(capsys, server_settings, monkeypatch, "--results_dir", tmp_path)
    assert "holds the results of another run (--resume goes on)" in message


@pytest.mark.parametrize(
    ("content", "is_token"),
    [("x" * 16, True), ("x" * 15, False), ("two words of some length", False), ("", False), ("\n" * 20, False)],
)
def test_tokens(monkeypatch, tmp_path, capsys, content, is_token):
    (tmp_path / "token").write_text(content)
    words = monkeypatch, "--cid", 0, "--token_file", tmp_path / "token"
    if is_token:
        assert client_settings(*words).token == content.encode()
    else:
        assert "holds no token: one word of 16 characters" in mistake(capsys, client_settings, *words)


def test_there_is_no_partition_for_a_cid(monkeypatch, capsys):
    message = mistake(capsys, client_settings, monkeypatch, "--cid", 5, "--num_clients", 5)
    assert message.startswith("client.py: argument --cid: must be from 0 to 4 (there are 5 partitions), not 5")


@pytest.mark.parametrize(("kind", "words"), [(client_settings, ["--cid", 0]), (server_settings, [])])
def test_settings_are_not_changed_by_mistake(monkeypatch, kind, words):
    settings = kind(monkeypatch, *words)
    for field in dataclasses.fields(settings):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, None)


def test_the_seed_of_a_run_is_that_of_its_beginning(monkeypatch, capsys, tmp_path):
    drawn = {server_settings(monkeypatch).seed for _ in range(3)}
    assert len(drawn) == 3 and all(0 <= seed < 2**32 for seed in drawn)
    RunFile(tmp_path, 7, {}).save()
    assert server_settings(monkeypatch, "--resume", tmp_path).seed == 7
    assert server_settings(monkeypatch, "--resume", tmp_path, "--seed", 7).seed == 7
    message = mistake(capsys, server_settings, monkeypatch, "--resume", tmp_path, "--seed", 8)
    assert message.startswith(f"server.py: argument --seed: the run in {tmp_path} has seed 7")
    (tmp_path / "run.json").unlink()  # of a run before there were seeds
    assert server_settings(monkeypatch, "--resume", tmp_path, "--seed", 8).seed == 8


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "4294967296", ""])
def test_no_seeds(monkeypatch, capsys, value):
    message = mistake(capsys, server_settings, monkeypatch, f"--seed={value}")
    expected = f"must be a whole number, from 0 to 4294967295, not {value!r}"
    assert message.startswith(f"server.py: argument --seed: {expected}")


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf", "Auto", ""])
def test_no_fit_seconds(monkeypatch, capsys, value):
    message = mistake(capsys, server_settings, monkeypatch, f"--fit_seconds={value}")
    assert message.startswith(f"server.py: argument --fit_seconds: must be a number of seconds above 0, not {value!r}")


def test_fit_seconds(monkeypatch):
    assert [server_settings(monkeypatch, "--fit_seconds", value).fit_seconds for value in ("auto", 2.5)] == [
        "auto",
        2.5,
    ]
