"""Small HTTP servers that answer as metering plugs do, or badly."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator

# Answers in the layouts that the documentation of Shelly and Tasmota shows; %s: the watts.
ANSWERS = {
    "Shelly, generation 2": (
        "/rpc/Switch.GetStatus?id=0",
        '{"id":0,"source":"init","output":true,"apower":%s,"voltage":231.7,"current":0.04,"aenergy":{"total":13652.7}}',
    ),
    "Tasmota": (
        "/cm?cmnd=Status%208",
        '{"StatusSNS":{"Time":"2026-11-24T20:06:19","ENERGY":{"Total":0.003,"Power":%s,"Voltage":239}}}',
    ),
}
BAD_ANSWERS = {
    "a login page": b"<html>a router</html>",
    "a list": b"[1, 2]",
    "null": b'{"apower": null}',
    "no ENERGY": b'{"StatusSNS":{"Time":"2026-11-24T20:06:19"}}',
    "two channels": b'{"StatusSNS":{"ENERGY":{"Power":[3,2]}}}',
}


class Server(ThreadingHTTPServer):
    """A plug of a kind in ANSWERS, until `body` says something else; `delay` in seconds."""

    daemon_threads = True

    def __init__(self, kind: str, watts: object) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.path, answer = ANSWERS[kind]
        self.answer = (answer % json.dumps(watts)).encode()
        self.body: bytes | None = None
        self.delay = 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers one question."""

    def do_GET(self) -> None:
        plug = self.server
        time.sleep(plug.delay)
        known = plug.body is not None or self.path == plug.path
        body = (plug.answer if plug.body is None else plug.body) if known else b"Not Found"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the client has had enough
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(kind: str = "Tasmota", watts: object = 7.5) -> Iterator[Server]:
    with Server(kind, watts) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
