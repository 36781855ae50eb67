"""A client that stays loaded: it answers over a Unix socket what a SuperNode of Flower's is asked.

For each message, a SuperNode starts a process that ends with the answer. This one has imported the framework, built the
model and read the data once; what the SuperNode starts only carries the bytes, see federation/engine/clientapp.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from federation.wire.messages import refuse, respond

if TYPE_CHECKING:
    from federation.client.wrapper import ClientWrapper  # which a process that only forwards need not import

CODE = str(Path(__file__).parents[2])  # Flower unpacks each version of a project into a folder of its own
SUPERNODE = "FLOWER_SUPERNODE"  # environment variable: the process that this client was started for, and ends with
LOOK_EVERY = 1  # seconds between two looks whether that still runs


def answer_node(path: Path, wrapper: ClientWrapper) -> NoReturn:
    """Answer whoever connects to the socket `path`, until this process is stopped.

    A connection brings two messages: what the run expects of this client, as JSON, such as {"dataset": "mnist"}, and
    which "code" it is for; then a question. It takes away the answer.
    """
    supernode = os.environ.get(SUPERNODE)
    if supernode is not None:
        threading.Thread(target=_end_with, args=(int(supernode),), daemon=True).start()
    with _listen(path) as listener:
        print(f"loaded, answers at {path}")
        while True:
            # Who connects may be gone before it has said anything, or before the answer.
            with contextlib.suppress(EOFError, OSError), listener.accept() as connection:
                expected = json.loads(connection.recv_bytes())
                question = connection.recv_bytes()
                is_older = expected.pop("code", CODE) != CODE
                found = {name: getattr(wrapper.identity, name) for name in expected}
                if supernode is not None and (is_older or found != expected):
                    os._exit(0)  # it is started anew, as the run expects it
                if found == expected:
                    connection.send_bytes(respond(question, wrapper.answer))
                else:
                    reason = f"the client that is loaded has {_listed(found)}, the run wants {_listed(expected)}"
                    print(f"refused: {reason}")
                    connection.send_bytes(refuse(question, reason))


def _listen(path: Path) -> Listener:
    """Return a listener at `path`, for this user only; ends this process if that cannot be."""
    try:
        with Client(str(path), "AF_UNIX"):
            sys.exit(f"another client answers at {path}")
    except OSError:
        pass  # nobody does
    before = os.umask(0o177)
    try:
        if path.is_socket():  # of a client that was killed
            path.unlink()
        return Listener(str(path), "AF_UNIX")
    except OSError as error:
        sys.exit(f"cannot listen at {path}: {error.strerror or error}")
    finally:
        os.umask(before)


def _listed(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {'none' if value == '' else value}" for name, value in values.items())


def _end_with(process: int) -> None:
    import psutil  # here, because only this needs it

    with contextlib.suppress(psutil.NoSuchProcess):
        node = psutil.Process(process)
        # One that has ended stays in the system's list until whoever started it takes note.
        while node.is_running() and node.status() != psutil.STATUS_ZOMBIE:
            time.sleep(LOOK_EVERY)
    os._exit(0)
