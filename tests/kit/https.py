"""A server that speaks TLS and has one answer, in a host's network, and the program that asks it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kit.certificates import Pair
from tests.kit.host import Host

ANSWER = "spoken in confidence"
_SERVER = """
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[3].encode())
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
CLIENT = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context, timeout=10)
connection.request("GET", "/")
print(connection.getresponse().read().decode())
"""  # arguments: the port, and the file of the CA that the server must be signed by


@contextmanager
def serving(host: Host, pair: Pair) -> Iterator[int]:
    """A server on the host's loopback, with that certificate. Yields its port."""
    command = (sys.executable, "-c", _SERVER, str(pair.certificate), str(pair.key), ANSWER)
    server = host.start(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait(timeout=10)
