"""An https server with a certificate of its own, and a proxy through which it answers for any host."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HOSTS = ("localhost", "huggingface.co", "download.pytorch.org")
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A running server: its answers by path, and the requests it has received."""

    port: int
    proxy: str
    certificate: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, and the Range header

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process reaches this server, and no other, under any host name."""
        return {"SSL_CERT_FILE": str(self.certificate), "HTTPS_PROXY": self.proxy, "NO_PROXY": "localhost"}

    def put(self, path: str, content: bytes) -> str:
        def whole(to: BaseHTTPRequestHandler) -> None:
            head(to, 200, {"Content-Length": str(len(content))})
            to.wfile.write(content)

        self.answers[path] = whole
        return self.url(path)


def head(to: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    to.send_response(status)
    for key, value in headers.items():
        to.send_header(key, value)
    to.end_headers()


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Serve until the context ends; skip the test where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, for a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    target = ["-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *options, *target], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, self.headers["Range"]))
            if answer := server.answers.get(self.path):
                answer(self)
            else:
                self.send_error(404)

        def do_CONNECT(self) -> None:
            """Act as a proxy that connects to this server whatever host is requested."""
            head(self, 200, {})
            with socket.create_connection(("localhost", server.port)) as upstream:
                backward = threading.Thread(target=_pump, args=(upstream, self.connection))
                backward.start()
                _pump(self.connection, upstream)
                backward.join()

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass  # tests kill clients in the middle of an answer

    secure, proxy = Server(("localhost", 0), Handler), Server(("localhost", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    server = Site(secure.server_port, f"http://localhost:{proxy.server_port}", certificate)
    for listener in (secure, proxy):
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        for listener in (secure, proxy):
            listener.shutdown()
            listener.server_close()


def _pump(source: socket.socket, to: socket.socket) -> None:
    try:
        while block := source.recv(1 << 16):
            to.sendall(block)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass
