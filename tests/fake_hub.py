"""As much of the Hugging Face Hub, on this machine, as its client uses to download the sample digits.

By hand, on a free port, which it prints: python tests/fake_hub.py
"""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from processes import ROOT


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does."""

    FILES = {f"mnist/{path.name}": path.read_bytes() for path in (ROOT / "sample_data/mnist").glob("*.parquet")}

    def do_GET(self):
        if "Authorization" in self.headers:  # of a token that has expired
            self.send_error(401)
        elif self.path.startswith("/api/datasets/ylecun/mnist/tree"):
            sizes = {name: len(content) for name, content in self.FILES.items()}
            tree = [{"type": "file", "path": name, "oid": "0" * 40, "size": size} for name, size in sizes.items()]
            self.answer(json.dumps(tree).encode(), "application/json")
        elif self.path.startswith("/api/datasets/ylecun/mnist"):
            siblings = [{"rfilename": name} for name in ("README.md", *self.FILES)]
            body = {"id": "ylecun/mnist", "sha": "0" * 40, "siblings": siblings, "private": False, "tags": []}
            self.answer(json.dumps(body).encode(), "application/json")
        else:
            self.answer(self.FILES["/".join(self.path.split("/")[-2:])], "application/octet-stream")

    do_HEAD = do_GET

    def answer(self, body: bytes, content_type: str) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def make_hub() -> ThreadingHTTPServer:
    """Return a hub that listens; `requests` are those that it has answered."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = []  # type: ignore[attr-defined]
    return server


def endpoint(port: int) -> dict[str, str]:
    """The environment in which that hub is taken for the real one."""
    return {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_expired"}


if __name__ == "__main__":
    hub = make_hub()
    print(f"port {hub.server_port}", flush=True)
    hub.serve_forever()
