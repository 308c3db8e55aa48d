"""Props: web servers on loopback addresses, with certificates for names that are nobody's."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"
"""Stand for an address out in the world and for one inside."""


class Handler(BaseHTTPRequestHandler):
    """Answers by path; every request that arrives is noted."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._body = self._read_body()
        self.server.seen.append((self.path, dict(self.headers.items()), self._body))
        place = urlsplit(self.path)
        getattr(self, f"_{place.path.strip('/')}")(parse_qs(place.query))

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 - as the library calls them

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo(self, _query: object) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = {"method": self.command, "path": self.path, "headers": headers, "body": len(self._body)}
        self._answer(json.dumps(said).encode(), content_type="application/json", set_cookie="a=b")

    def _secret(self, _query: object) -> None:
        self._answer(b"the secret of this network")

    def _redirect(self, query: dict[str, list[str]]) -> None:
        self._answer(b"", 302, location=query["to"][0])

    def _bomb(self, _query: object) -> None:
        self._answer(gzip.compress(bytes(20_000_000)), content_encoding="gzip")

    def _packed(self, _query: object) -> None:
        self._answer(gzip.compress(b"unpacked " * 50_000), content_encoding="gzip")

    def _brotli(self, _query: object) -> None:
        self._answer(b"\x00" * 100, content_encoding="br")

    def _large(self, query: dict[str, list[str]]) -> None:
        self._answer(b"x" * int(query["size"][0]))

    def _endless(self, _query: object) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.server.gave_up.set()

    def _slow(self, _query: object) -> None:
        self.server.stopping.wait(5)
        self._answer(b"at last")

    def _headers(self, query: dict[str, list[str]]) -> None:
        self._answer(b"", 200, **{f"x-{number}": "y" for number in range(int(query["count"][0]))})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library has it
        pass


class Server(ThreadingHTTPServer):
    """A web server that notes what it was asked."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.gave_up = threading.Event()
        self.stopping = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def serving(address: str, port: int, certificate: Path | None) -> Iterator[Server]:
    """Run a web server; with a certificate, over TLS."""
    server = Server((address, port))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def certificate_for(*names: str, path: Path) -> ssl.SSLContext:
    """Write a certificate for these names, with its key; return what believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ssl.create_default_context(cadata=pem.decode())
