"""What this board's camera sees, in a browser: take photos of things there, and see what is recognised.

    python teach.py --photos photos

Open the address that it prints on a laptop or phone, point the camera at something, and hold the button with its name.
client_onnx.py with the same --photos learns from the photos, together with other boards, and writes the classifier by
which this script recognises things. The two share only that folder; either may be away.
"""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

from federation.data.images import decode_image
from federation.flags import ArgumentParser, Failure, path, run_main, whole_number
from federation.teach.album import Album
from federation.teach.cameras import Camera, find_camera
from federation.teach.page import make_app, read_secret, serve_page

import client_onnx as eye

SMOOTHING = 0.1  # of the frames a second: the weight of the newest


class Recogniser:
    """Says what the newest frame shows, by the classifier that client_onnx.py keeps beside the photos."""

    def __init__(self, camera: Camera, album: Album) -> None:
        self.camera, self.album = camera, album
        self.backbone = eye.open_backbone()
        self.scores: dict[str, float] = {}  # by class, from 0 to 1; empty: there is no classifier or no picture
        self.seconds = 0.0  # a frame takes

    def start(self) -> None:
        """Look from now on, in a thread, until the process ends."""
        threading.Thread(target=self._look, daemon=True, name="recogniser").start()

    def state(self) -> dict[str, Any]:
        """What the page shows: the scores, and how many frames a second are looked at."""
        return {"scores": self.scores, "fps": round(1 / self.seconds, 1) if self.seconds else 0}

    def _look(self) -> None:
        number, started = 0, time.monotonic()
        while True:
            frame = self.camera.newest(after=number)
            if frame is None:
                self.scores = {}
                continue
            number = frame.number
            self.scores = self.recognise(frame.jpeg)
            now = time.monotonic()
            self.seconds += (now - started - self.seconds) * (SMOOTHING if self.seconds else 1)
            started = now

    def recognise(self, jpeg: bytes) -> dict[str, float]:
        """Score each class by how much the photo looks like it; the photo is seen as client_onnx.py would see it."""
        classifier = self.album.classifier()
        if classifier is None or len(classifier.weights) != eye.FEATURES + 1:  # the second: before the first round
            return {}
        pixels = decode_image(io.BytesIO(jpeg), (eye.SIZE, eye.SIZE, 3), fit=True)
        features = eye.fold(self.backbone.run(None, {"images": pixels[None]})[0][0])
        outputs = (features @ classifier.weights).clip(0, 1)
        return dict(zip(classifier.classes, outputs.round(3).tolist()))


def main() -> None:
    """Open the camera, and offer the page."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--photos",
        type=path,
        default=Path("photos"),
        metavar="FOLDER",
        help="where photos go, in a folder for each class (default: ./photos)",
    )
    parser.add_argument(
        "--camera",
        metavar="NAME",
        help="number or file of a camera on USB, or a folder of pictures for trying out (default: the Raspberry Pi's "
        "own camera, else the first on USB)",
    )
    parser.add_argument(
        "--host", default="0.0.0.0", help="address to listen on (default: %(default)s, all of this device)"
    )
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, help="(default: %(default)s)")
    args = parser.parse_args()
    try:
        args.photos.mkdir(parents=True, exist_ok=True)
        secret = read_secret(args.photos)
    except OSError as error:
        raise Failure(f"cannot use {args.photos}: {error.strerror or error}", exit_code=2) from error
    eye.set_threads(1)  # the camera, the page and client_onnx.py need cores, too
    camera, album = find_camera(args.camera), Album(args.photos)
    recogniser = Recogniser(camera, album)
    camera.start()
    recogniser.start()
    serve_page(make_app(album, camera, recogniser.state, secret), secret, args.host, args.port)


if __name__ == "__main__":
    run_main(main)
