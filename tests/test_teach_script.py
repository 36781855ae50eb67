"""teach.py as a user starts it: its address, many requests at once, mistakes."""

from __future__ import annotations

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import PROMPTLY, free_address


@pytest.fixture
def camera(tmp_path) -> Path:
    """A folder with a picture."""
    (tmp_path / "camera").mkdir()
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "camera/1.png")
    return tmp_path / "camera"


@pytest.fixture
def teach(start, tmp_path, camera):
    """Return a function that starts teach.py with these flags."""
    port = free_address().partition(":")[2]
    usual = "--photos", tmp_path / "photos", "--camera", camera, "--host", "127.0.0.1", "--port", port
    return lambda *flags: start("teach.py", *usual, *flags)


def status_of(url: str, method: str = "GET") -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_hundred_requests_at_once(teach, tmp_path):
    script = teach()
    script.wait_for("not encrypted")
    url, secret = script.output.partition("open ")[2].split()[0].split("/?")
    assert status_of(url) == 403 and status_of(f"{url}/?{secret}") == 200
    assert status_of(f"{url}/classes?name=cup&{secret}", "POST") == 200
    with ThreadPoolExecutor(100) as threads:
        found = list(threads.map(lambda _: status_of(f"{url}/photos?class=cup&{secret}", "POST"), range(100)))
    assert {200} <= {*found} <= {200, 503}  # the others may come back
    assert len([*(tmp_path / "photos/cup").glob("*.jpg")]) == found.count(200)
    assert status_of(f"{url}/state?{secret}") == 200
    script.popen.terminate()
    script.exit_code(PROMPTLY)
    assert "Traceback" not in script.output


MISTAKES = {
    "no folder": (("--photos", "README.md"), "cannot use README.md: File exists"),
    "a port of another": (("--port", "x"), "argument --port: must be a whole number, from 0 to 65535"),
    "no address": (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1:"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_a_sentence(teach, kind):
    flags, sentence = MISTAKES[kind]
    script = teach(*flags)
    assert script.exit_code() in (1, 2)
    assert sentence in script.output and script.output.count("\n") == 1
