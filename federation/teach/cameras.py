"""Cameras: the Raspberry Pi's own, USB cameras, and a folder of pictures to try it out. One thread reads."""

from __future__ import annotations

import io
import itertools
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from federation.data.images import decode_image
from federation.data.photos import photo_files
from federation.flags import Failure

import numpy as np

WIDTH, HEIGHT = 640, 480
FOLDER_FPS = 25  # of a folder's pictures
TRY_AGAIN = 2  # seconds after a camera failed
QUALITY = 85  # of JPEGs


class Frame(NamedTuple):
    """What a camera saw at one moment."""

    number: int  # of the frame, from 1 on
    jpeg: bytes


class Camera:
    """Reads a camera in a separate thread, and tries again if it fails; `trouble` says why there are no frames.

    `open_frames` opens the camera and yields its frames; it raises Failure or OSError with the reason if it cannot.
    """

    def __init__(self, open_frames: Callable[[], Iterator[np.ndarray]]) -> None:
        self.open_frames = open_frames
        self.trouble = "the camera is starting"
        self._frame: Frame | None = None
        self._changed = threading.Condition()

    def start(self) -> None:
        """Read from now on, until the process ends."""
        threading.Thread(target=self._read, daemon=True, name="camera").start()

    def newest(self, after: int = 0, timeout: float = 1) -> Frame | None:
        """The newest frame, with a number above `after`; None if there is none within `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None and self._frame.number > after, timeout)
            return self._frame if self._frame is not None and self._frame.number > after else None

    def _read(self) -> None:
        numbers = itertools.count(1)
        while True:
            try:
                for image in self.open_frames():
                    frame = Frame(next(numbers), to_jpeg(image))
                    with self._changed:
                        self._frame, self.trouble = frame, ""
                        self._changed.notify_all()
                trouble = "the camera sends no more pictures: is it unplugged?"
            except (Failure, OSError) as error:
                trouble = str(getattr(error, "strerror", None) or error)
            with self._changed:
                if trouble != self.trouble:
                    print(trouble)
                self._frame, self.trouble = None, trouble
            time.sleep(TRY_AGAIN)


def to_jpeg(image: np.ndarray) -> bytes:
    """An image, uint8 [height, width, 3], as a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def find_camera(name: str | None) -> Camera:
    """The camera `name`: a folder of pictures, a number or device file; by default the Pi's own, or the first on USB.

    Raises Failure if a library that it needs is missing.
    """
    if name is not None and Path(name).is_dir():
        return Camera(lambda: folder_frames(Path(name)))
    if name is None and has_pi_camera():
        return Camera(pi_frames)
    try:
        import cv2  # noqa: F401
    except ImportError:
        raise Failure("a USB camera needs OpenCV: pip install -r requirements_teach.txt", exit_code=2) from None
    wanted = name or "0"
    return Camera(lambda: usb_frames(int(wanted) if wanted.isdigit() else wanted))


def folder_frames(folder: Path) -> Iterator[np.ndarray]:
    """Yield the pictures in a folder in turn, over and over, until there are none."""
    while True:
        files = list(photo_files(folder))
        if not files:
            raise Failure(f"there is no picture in {folder}")
        for path in files:
            try:
                yield decode_image(path, (HEIGHT, WIDTH, 3), fit=True)
            except (OSError, ValueError, SyntaxError):  # not a picture, or it is gone
                continue
            time.sleep(1 / FOLDER_FPS)


def has_pi_camera() -> bool:
    """Whether picamera2, a part of Raspberry Pi OS, knows a camera."""
    try:
        from picamera2 import Picamera2

        return bool(Picamera2.global_camera_info())
    except Exception:  # it is missing, or whatever libcamera raises
        return False


def pi_frames() -> Iterator[np.ndarray]:
    """Yield the frames of the Raspberry Pi's camera; not tested on a real board."""
    from picamera2 import Picamera2

    try:
        camera: Any = Picamera2()
        camera.configure(camera.create_video_configuration({"format": "BGR888", "size": (WIDTH, HEIGHT)}))
        camera.start()
    except Exception as error:
        raise Failure(f"cannot use the camera, perhaps because another program uses it: {error}") from error
    try:
        while True:
            yield camera.capture_array()  # picamera2 calls red, green, blue in this order BGR888
    finally:
        camera.close()


def usb_frames(name: int | str) -> Iterator[np.ndarray]:
    """Yield the frames of a USB camera, until it sends no more."""
    import cv2

    capture = cv2.VideoCapture(name)
    try:
        if not capture.isOpened():
            raise Failure(f"there is no camera {name}, or another program has it")
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, WIDTH)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT)
        while True:
            is_there, image = capture.read()
            if not is_there:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
