"""A way to a server that a test can break: for a time, or so that nobody notices."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes between whoever connects to `url` and a server."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname and parts.port
        self._target = (parts.hostname, parts.port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"{parts.scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and those that are made from now on."""
        self._refusing = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._refusing = False

    def lose(self) -> None:
        """Have what comes from the server on the connections that are open disappear. New ones work."""
        self._flowing.clear()
        self._flowing = threading.Event()
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            if self._refusing:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, self._flowing), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, flowing: threading.Event | None) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if flowing is None or flowing.is_set():
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
