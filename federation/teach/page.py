"""The page in the browser: its files, the live picture, what is recognised, and what its buttons do."""

from __future__ import annotations

import hmac
import math
import secrets
import socket
from pathlib import Path
from typing import Any, Callable, Iterator

from federation.files import replaced
from federation.flags import Failure
from federation.teach.album import Album
from federation.teach.cameras import Camera
from federation.wire.addresses import Address, reachable_addresses

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PAGE = Path(__file__).parents[2] / "teach"
MOST_LIVE = 8  # pages that show the live picture at the same time
MOST_REQUESTS = 50  # at the same time; more are refused with 503
SECRET = ".secret"  # in the folder of photos, so that an open page still works after a restart


def read_secret(folder: Path) -> str:
    """The secret in the folder of photos, made if there is none; raises OSError if that fails."""
    file = folder / SECRET
    if not file.exists():
        with replaced(file) as new:
            new.write(secrets.token_urlsafe(12).encode())
        file.chmod(0o600)
    return file.read_text().strip()


class OnlyWithSecret:
    """Lets requests through only with the secret in their address, or in the cookie that the page sets."""

    def __init__(self, app: Any, secret: str) -> None:
        self.app, self.secret = app, secret

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403 to all others."""
        if scope["type"] == "http":
            request = Request(scope)
            shown = request.query_params.get("secret") or request.cookies.get(cookie(request)) or ""
            if not hmac.compare_digest(shown.encode(), self.secret.encode()):
                await PlainTextResponse("Open the whole address that teach.py printed.", 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def make_app(album: Album, camera: Camera, state: Callable[[], dict[str, Any]], secret: str) -> Starlette:
    """The application behind the page; `state` returns what is recognised."""
    watching: set[object] = set()

    def page(request: Request) -> Response:
        response = FileResponse(PAGE / "index.html")
        response.set_cookie(cookie(request), secret, max_age=365 * 24 * 3600, httponly=True, samesite="strict")
        return response

    def file(request: Request) -> Response:
        return FileResponse(PAGE / request.url.path[1:], headers={"Cache-Control": "no-cache"})

    def live(request: Request) -> Response:
        if len(watching) >= MOST_LIVE:
            return PlainTextResponse("too many pages are open", 503)
        return StreamingResponse(parts(), media_type="multipart/x-mixed-replace; boundary=frame")

    def parts() -> Iterator[bytes]:
        watcher, number = object(), 0
        watching.add(watcher)
        try:
            while True:
                frame = camera.newest(after=number)
                if frame is None:
                    yield b"\r\n"  # raises an error here if the page is gone
                    continue
                number = frame.number
                yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + frame.jpeg + b"\r\n"
        finally:
            watching.discard(watcher)

    def tell(request: Request) -> Response:
        known, counts = album.classifier(), album.counts()
        told = {
            "camera": camera.trouble,
            "classes": [{"name": name, "photos": number} for name, number in counts.items()],
            "federation": {"round": known.round, "accuracy": finite(known.accuracy)} if known else None,
            "undo": album.can_undo,
        }
        return JSONResponse({**told, **state()})

    def take(request: Request) -> Response:
        frame = camera.newest()
        if frame is None:
            return PlainTextResponse(camera.trouble or "the camera sends no picture", 503)
        album.take(request.query_params.get("class", ""), frame.jpeg)
        return tell(request)

    def undo(request: Request) -> Response:
        album.undo()
        return tell(request)

    def add(request: Request) -> Response:
        album.add_class(request.query_params.get("name", ""))
        return tell(request)

    def refuse(request: Request, error: Exception) -> Response:
        status = 400 if isinstance(error, ValueError) else 507
        return PlainTextResponse(str(getattr(error, "strerror", None) or error), status)

    routes = [
        Route("/", page),
        *(Route(f"/{name}", file) for name in ("page.js", "page.css")),
        Route("/live", live),
        Route("/state", tell),
        Route("/photos", take, methods=["POST"]),
        Route("/photos", undo, methods=["DELETE"]),
        Route("/classes", add, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={ValueError: refuse, OSError: refuse})
    app.add_middleware(OnlyWithSecret, secret=secret)
    return app


def cookie(request: Request) -> str:
    """The name of the cookie with the secret; browsers share cookies between all ports of an address."""
    return f"secret-{request.url.port or 80}"


def finite(number: float) -> float | None:
    """The number, for JSON, which has no NaN."""
    return number if math.isfinite(number) else None


def serve_page(app: Starlette, secret: str, host: str, port: int) -> None:
    """Serve the page until the process ends; raises Failure if the port is taken."""
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise Failure(f"cannot listen on {host}:{port}: {error.strerror or error} (choose another --port)") from error
    addresses = reachable_addresses(Address(host, listening.getsockname()[1]))
    print("open " + " or ".join(f"http://{address}/?secret={secret}" for address in addresses))
    print("not encrypted: others on the network can see the pictures and the secret")
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=MOST_REQUESTS, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
