"""Pages in Debian's Chromium without a screen, by its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from processes import Process
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium")
QUIET = "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--mute-audio"


class Page:
    """A page that is open; `evaluate` runs JavaScript in it."""

    def __init__(self, socket: str, width: int, height: int, dark: bool) -> None:
        self.connection = connect(socket, max_size=None)
        self.numbers = itertools.count(1)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.enable")
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)  # as if it were the page in front

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.connection.recv(timeout=30))
            if answer.get("id") == number:  # not an event
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, selector: str) -> None:
        """Put a finger on an element, until `release`."""
        self._touch("mousePressed", selector)

    def release(self, selector: str) -> None:
        self._touch("mouseReleased", selector)

    def _touch(self, kind: str, selector: str) -> None:
        box = f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        x, y = self.evaluate(f"{box} return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """Chromium, which ends with the block."""

    def __init__(self, folder: Path) -> None:
        command = [str(CHROMIUM), *QUIET, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
        self.process = Process(command, folder.with_suffix(".log"))
        self.process.wait_for("DevTools listening on")
        (self.port,) = re.findall(r"ws://127.0.0.1:(\d+)/", self.process.output)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.popen.terminate()
        self.process.exit_code()

    def page(self, url: str, width: int = 1280, height: int = 760, dark: bool = False) -> Page:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"], width, height, dark)
        page.open(url)
        return page
