"""Services of this machine for tests: one of any conversation, and one of files over HTTP."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Service", "echo", "web_server"]

Conversation = Callable[[socket.socket], None]


class Service:
    """A TCP service on this machine, one thread for each connection; it can be stopped and started again."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._listener: socket.socket | None = None
        self._port = 0
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> Service:
        listener = socket.create_server(("127.0.0.1", self._port), backlog=200)
        self._listener, self._port = listener, listener.getsockname()[1]
        self._run(self._accept, listener)
        return self

    def stop(self) -> None:
        """Listener and connections are closed."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            _shut(connection)
        for thread in self._threads:
            thread.join(60)
        self._threads.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections.add(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._conversation(connection)
            except OSError:
                pass
            finally:
                self._connections.discard(connection)

    def _run(self, work: Callable[[socket.socket], None], argument: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(argument,), daemon=True)
        self._threads.append(thread)
        thread.start()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    """A conversation: what comes goes back."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


class Pages(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, over connections that are kept."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it writes head and body one after the other, and would wait 40 ms in between

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


class WebServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextmanager
def web_server(directory: Path) -> Iterator[str]:
    def pages(*arguments: object) -> Pages:
        return Pages(*arguments, directory=str(directory))  # type: ignore[arg-type]

    with WebServer(("127.0.0.1", 0), pages) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
