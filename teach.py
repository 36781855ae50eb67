"""Show this board's camera in a browser: take photos of things, and see what it recognises.

    python teach.py --photos photos

On a laptop or phone, open the address that it prints. Point the camera at something, and hold the button with its name.
client_onnx.py with the same --photos learns from the photos, together with other boards. It writes the classifier that
this script uses. The two share only that folder; each can run without the other.
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

SMOOTHING = 0.1  # weight of the newest frame in the frames per second


class Recogniser:
    """Recognises the newest frame, with the classifier that client_onnx.py keeps beside the photos."""

    def __init__(self, camera: Camera, album: Album) -> None:
        self.camera, self.album = camera, album
        self.backbone = eye.open_backbone()
        self.scores: dict[str, float] = {}  # by class, from 0 to 1; empty: there is no classifier or no picture
        self.seconds = 0.0  # per frame

    def start(self) -> None:
        """Start a thread that recognises frames until the process ends."""
        threading.Thread(target=self._look, daemon=True, name="recogniser").start()

    def state(self) -> dict[str, Any]:
        """What the page shows: the scores, and the frames recognised per second."""
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
        """Return a score for each class; the photo is prepared as client_onnx.py does it."""
        classifier = self.album.classifier()
        if classifier is None or len(classifier.weights) != eye.FEATURES + 1:  # no weights before the first round
            return {}
        pixels = decode_image(io.BytesIO(jpeg), (eye.SIZE, eye.SIZE, 3), fit=True)
        features = eye.fold(self.backbone.run(None, {"images": pixels[None]})[0][0])
        outputs = (features @ classifier.weights).clip(0, 1)
        return dict(zip(classifier.classes, outputs.round(3).tolist()))


def main() -> None:
    """Open the camera, and serve the page."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--photos",
        type=path,
        default=Path("photos"),
        metavar="FOLDER",
        help="where to keep the photos, in one folder per class (default: ./photos)",
    )
    parser.add_argument(
        "--camera",
        metavar="NAME",
        help="number or device file of a USB camera, or a folder of pictures to try it out (default: the Raspberry "
        "Pi's own camera, or else the first USB camera)",
    )
    parser.add_argument(
        "--host", default="0.0.0.0", help="address to listen on (default: %(default)s, all addresses here)"
    )
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, help="port (default: %(default)s)")
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
