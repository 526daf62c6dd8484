"""A witness over HTTP: the standard library's server, with bounds on time, length and connections.

It speaks plain HTTP: what it answers is signed, and TLS is for a proxy before it.  Imports only the witness and errors.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from ..errors import AnchorUnavailable, UnusableKey
from .addcheckpoint import MAX_REQUEST
from .witnessing import Reply, Witness

ADD: Final = "/add-checkpoint"
PATIENCE: Final = 10.0
"""Seconds that a client may take over each step before its connection is closed."""
MOST_CONNECTIONS: Final = 64


class WitnessServer(ThreadingHTTPServer):
    """Serves a witness until :meth:`shutdown`; use as a context manager to close its socket.

    Args:
        witness: what decides.
        address: host and port; port 0 takes a free one.
        say: is given a line for each request.

    Raises:
        OSError: if the address can't be had.
    """

    daemon_threads = False  # a reply that has been decided is sent before the process ends
    request_queue_size = 32
    allow_reuse_address = True

    def __init__(self, witness: Witness, address: tuple[str, int], say: Callable[[str], None]) -> None:
        self.witness = witness
        self.say = say
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or close it where there are too many."""
        if not self._free.acquire(blocking=False):
            self.say(f"{client_address[0]}: closed, there are {MOST_CONNECTIONS} connections")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a connection that broke in one line; anything else is a fault, and is shown whole."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.say(f"{client_address[0]}: the connection broke: {error}")
            return
        super().handle_error(request, client_address)

    @contextlib.contextmanager
    def running(self) -> Iterator[WitnessServer]:
        """Serve in a thread for the length of a block; for tests, and for programs of your own."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: WitnessServer
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server_version = "sa-audit-witness"
    sys_version = ""

    def do_POST(self) -> None:  # the name that the standard library calls
        """Answer add-checkpoint."""
        if self.path != ADD:
            self._reply(Reply(404, b"there is nothing here\n"), close=True)
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            self._reply(Reply(411, b"a length is needed\n"), close=True)
            return
        if len(length) > 9 or int(length) > MAX_REQUEST:
            self._reply(Reply(413, b"that is too long for a checkpoint and a proof\n"), close=True)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True  # the client went away in the middle
            return
        try:
            reply = self.server.witness.add_checkpoint(body)
        except (AnchorUnavailable, UnusableKey) as error:
            self._reply(Reply(500, b"the witness can't cosign now\n", note=f"CAN'T COSIGN: {error}"))
            return
        self._reply(reply)

    def do_GET(self) -> None:  # the name that the standard library calls
        """Hand out what was cosigned last."""
        self._reply(self.server.witness.shown(self.path))

    def _reply(self, reply: Reply, *, close: bool = False) -> None:
        if reply.note:
            self.server.say(f"{self.client_address[0]}: {reply.note}")
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.type)
        self.send_header("Content-Length", str(len(reply.body)))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # the base class's name
        """Say nothing of one's own: the notes of the replies say more."""
