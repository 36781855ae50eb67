"""teach.py on a board: photos that are taken, the classifier that is used, the camera, and who may see the page."""

from __future__ import annotations

import errno
import io
import itertools
import math
import shutil
import threading
import time

from federation.data.pictures import PhotoFolder
from federation.flags import Failure
from federation.teach import cameras
from federation.teach.album import Album
from federation.teach.cameras import Camera, find_camera, folder_frames
from federation.teach.page import make_app, read_secret, serve_page

import numpy as np
import pytest
from fakes import wait_until
from PIL import Image
from starlette.testclient import TestClient
from test_photos import BLUE, RED, take

WHITE_PICTURE = np.full((60, 80, 3), 255, np.uint8)


@pytest.fixture
def album(tmp_path) -> Album:
    (tmp_path / "photos").mkdir()
    return Album(tmp_path / "photos")


def learn(album: Album, *classes: str, server_round: int = 1, accuracy: float = 0.75) -> None:
    """Do what a client does whose server names these classes."""
    photos = PhotoFolder(album.folder)
    photos.choose_classes(list(classes))
    if server_round:
        photos.keep(np.ones((3, len(classes)), np.float32), server_round, accuracy)


def test_photos_are_taken_counted_and_undone(album):
    for name in ("cup", "spoon"):
        album.add_class(name)
    for name in ("cup", "cup", "spoon"):
        album.take(name, b"a photo")
    assert album.counts() == {"cup": 2, "spoon": 1}
    assert {path.read_bytes() for path in album.folder.glob("*/*.jpg")} == {b"a photo"}
    album.undo()
    assert album.counts() == {"cup": 2, "spoon": 0} and album.can_undo
    shutil.rmtree(album.folder / "cup")
    for _ in range(3):
        album.undo()
    assert not album.can_undo
    with pytest.raises(ValueError, match="there is no class 'cup'"):
        album.take("cup", b"a photo")
    learn(album, "cup", "nothing")  # the laptop names it, and there is no folder
    album.take("cup", b"a photo")
    assert album.counts() == {"cup": 1, "nothing": 0}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "a\nb", "\u202e", "x" * 300, "_a", "@eaDir", " "]
)
def test_names_that_no_folder_has(album, name):
    with pytest.raises(ValueError, match="cannot be the name of a folder for a class"):
        album.add_class(name)
    assert not [*album.folder.iterdir()]


@pytest.mark.parametrize("name", ["tea cup", "Tasse für Ä", "🥄", "x" * 64, "a.b", "10", "con"])
def test_names_that_folders_have(album, name):
    album.add_class(name)
    album.take(name, b"a photo")
    assert album.counts() == {name: 1}


def test_the_newest_classifier(album):
    assert album.classifier() is None
    album.add_class("fork")
    learn(album, "cup", "spoon", server_round=0)
    known = album.classifier()
    assert (known.classes, known.round) == (["cup", "spoon"], 0) and math.isnan(known.accuracy)
    with pytest.raises(ValueError, match="the laptop names the classes"):
        album.add_class("dog")
    learn(album, "cup", "spoon", server_round=3)
    assert (album.classifier().round, album.classifier().accuracy) == (3, 0.75)
    PhotoFolder(album.folder).choose_classes(["cup", "spoon"])  # a client that starts anew keeps it
    assert album.classifier().round == 3
    learn(album, "cup", "spoon", "nothing", server_round=0)  # the server was started with one more
    assert album.classes() == ["cup", "spoon", "nothing"] and album.classifier().round == 0
    (album.folder / "classifier.npz").write_bytes(b"half of it")
    assert album.classifier() is None and album.classes() == ["fork"]


class Flashes:
    """A camera that shows so many pictures each time that it is opened, then fails with the next of some errors."""

    def __init__(self, monkeypatch, number: int, *errors: Exception) -> None:
        monkeypatch.setattr(cameras, "TRY_AGAIN", 0.01)
        self.number, self.errors = number, itertools.chain(errors, itertools.repeat(None))
        self.camera = Camera(self.frames)

    def frames(self):
        for _ in range(self.number):
            time.sleep(0.005)
            yield WHITE_PICTURE
        error = next(self.errors)
        if error is not None:
            raise error
        threading.Event().wait()


def test_a_camera_that_fails_is_tried_again_and_says_why(monkeypatch, capsys):
    errors = Failure("there is no camera 0, or another program has it"), OSError(errno.ENODEV, "No such device")
    flashes = Flashes(monkeypatch, 1, *errors)
    flashes.camera.start()
    wait_until(lambda: flashes.camera.newest(after=2))  # the third time, it works
    assert flashes.camera.trouble == ""
    assert capsys.readouterr().out == f"{errors[0]}\nNo such device\n"
    frame = flashes.camera.newest()
    assert (
        frame.number == 3 and frame.jpeg.startswith(b"\xff\xd8") and flashes.camera.newest(after=3, timeout=0) is None
    )


def test_a_folder_as_a_camera(tmp_path, monkeypatch):
    monkeypatch.setattr(cameras, "FOLDER_FPS", 1000)
    with pytest.raises(Failure, match="there is no picture in"):
        next(folder_frames(tmp_path))
    take(tmp_path / "1.png", RED)
    take(tmp_path / "2.jpg", BLUE)
    (tmp_path / "notes.txt").write_text("no picture")
    frames = folder_frames(tmp_path)
    reds = [next(frames)[0, 0, 0] > 200 for _ in range(4)]
    assert reds == [True, False, True, False]
    camera = find_camera(str(tmp_path))
    camera.start()
    with Image.open(io.BytesIO(camera.newest(timeout=10).jpeg)) as image:
        assert (image.size, image.mode) == ((640, 480), "RGB")


@pytest.fixture
def client(album, monkeypatch) -> TestClient:
    """A browser with the whole address, beside a camera that works."""
    camera = Flashes(monkeypatch, 3).camera
    camera.start()
    wait_until(camera.newest)
    app = make_app(album, camera, lambda: {"scores": {"cup": 0.9}, "fps": 12.0}, "the secret")
    browser = TestClient(app)
    browser.params = {"secret": "the secret"}
    return browser


PATHS = [("GET", "/"), ("GET", "/page.js"), ("GET", "/page.css"), ("GET", "/state"), ("GET", "/live"), ("GET", "/none")]
PATHS += [("POST", "/photos?class=cup"), ("DELETE", "/photos"), ("POST", "/classes?name=x")]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nobody_without_the_secret_gets_a_picture(client, album, method, path):
    album.add_class("cup")
    client.params = {}
    for shown in ({}, {"secret": ""}, {"secret": "the secret!"}, {"secret": "ä"}):
        answer = client.request(method, path.partition("?")[0], params=shown)
        assert answer.status_code == 403 and "\xff\xd8" not in answer.text
    assert album.counts() == {"cup": 0} and album.classes() == ["cup"]


def test_the_page_and_what_its_buttons_do(client, album):
    assert "<title>Teach it</title>" in client.get("/").text
    client.params = {}  # from now on, the cookie is enough
    assert client.get("/page.js").status_code == client.get("/page.css").status_code == 200
    assert client.post("/classes", params={"name": "tea cup"}).json()["classes"] == [{"name": "tea cup", "photos": 0}]
    state = client.post("/photos", params={"class": "tea cup"}).json()
    assert state["classes"] == [{"name": "tea cup", "photos": 1}] and state["undo"]
    with Image.open(next(album.folder.glob("tea cup/*.jpg"))) as photo:
        assert photo.size == (80, 60)
    state = client.delete("/photos").json()
    assert state["classes"] == [{"name": "tea cup", "photos": 0}] and not state["undo"]
    assert (state["federation"], state["scores"], state["fps"], state["camera"]) == (None, {"cup": 0.9}, 12.0, "")
    learn(album, "cup", "spoon", accuracy=math.nan)
    assert client.get("/state").json()["federation"] == {"round": 1, "accuracy": None}


def test_what_cannot_be_done_is_a_sentence(client, album, monkeypatch):
    answer = client.post("/classes", params={"name": "../up"})
    assert (answer.status_code, answer.text) == (400, "'../up' cannot be the name of a folder for a class")
    assert client.post("/photos", params={"class": "none"}).status_code == 400
    album.add_class("cup")
    full = shutil.disk_usage(album.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    answer = client.post("/photos", params={"class": "cup"})
    assert (answer.status_code, answer.text) == (507, "there is no space left on the card")
    assert album.counts() == {"cup": 0}


def test_the_secret_stays_and_is_nobody_elses(tmp_path):
    secret = read_secret(tmp_path)
    assert len(secret) >= 16 and read_secret(tmp_path) == secret
    assert (tmp_path / ".secret").stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken(client):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Failure, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            serve_page(client.app, "the secret", "127.0.0.1", port)
