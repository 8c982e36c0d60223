"""A bundle behind a real HTTP Kubernetes API on loopback.

docs/embedded-cluster.md says what it serves. It listens on 127.0.0.1 alone; its clock is the bundle's.
"""

import contextlib
import datetime
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import yaml

from kube_gpucheck.evidence.bundle import Bundle
from kube_gpucheck.simulate.answers import RefusedError, Reply, Request, bad_request
from kube_gpucheck.simulate.apiserver import ApiServer
from kube_gpucheck.simulate.faults import Fault, FaultKind, Faults
from kube_gpucheck.simulate.routes import Asking, asking_of
from kube_gpucheck.simulate.script import Script

MAX_BODY_BYTES: Final = 3 * 2**20
"""The largest body that is taken. Source: k8s.io/apiserver/pkg/server/config.go, MaxRequestBodyBytes."""
STEP_S: Final = 0.1
"""How long a step takes of what is made in the cluster: a pod starts after two."""
_IDLE_S: Final = 60
_PIECES: Final = 20
"""In how many pieces a slow body comes."""


if TYPE_CHECKING:
    from typing_extensions import Self


class TlsFiles(msgspec.Struct, frozen=True):
    """The files of a server that is spoken to by TLS, PEM: its certificate, its key, and who clients should trust."""

    certificate: Path
    key: Path
    authority: Path


class EmbeddedCluster:
    """A context manager: the server answers from entering to leaving."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        name: str,
        port: int = 0,
        faults: Sequence[Fault] = (),
        tls: TlsFiles | None = None,
        script: Script | None = None,
    ) -> None:
        """Bind the port (0: any free one); nothing is answered yet. `script`: what becomes of pods that are made.

        Raises:
            OSError: the port is taken, or a file of TLS cannot be read.
        """
        self.name = name
        self._tls = tls
        self._faults = Faults(faults)
        self.api = ApiServer(bundle, script=script, forbids=self._faults.forbid)
        self._asked: list[Asking] = []
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.cluster = self
        self._server.date = format_datetime(bundle.gathered_at.astimezone(datetime.timezone.utc), usegmt=True)
        if context is not None:
            # The handshake is made by the connection's own thread, when it first reads.
            listening = self._server.socket
            self._server.socket = context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        self._stopped = threading.Event()
        self._stepping = threading.Thread(target=self._step, name=f"simulated-{name}-progress", daemon=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name=f"simulated-{name}", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> tuple[Asking, ...]:
        """What was asked until now, in order."""
        return tuple(self._asked)

    def kubeconfig(self) -> str:
        """Return a kubeconfig, YAML, whose context is `simulated-<name>`."""
        context = f"simulated-{self.name}"
        cluster: dict[str, str] = {"server": self.url}
        if self._tls is not None:
            cluster["certificate-authority"] = str(self._tls.authority)
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "clusters": [{"name": context, "cluster": cluster}],
                "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
                "users": [{"name": context, "user": {"token": "simulated"}}],
            },
            sort_keys=False,
        )

    def answer(self, request: Request, query: str) -> tuple[Reply, Fault | None]:
        """Return the answer to a request and the fault with which it is sent; remember that it came."""
        asking = asking_of(request, query)
        self._asked.append(asking)
        met = self._faults.met(asking)
        for one in met:
            if one.kind is FaultKind.VANISH:
                self.api.vanish(one.where)
        fault = next((one for one in met if one.kind is not FaultKind.VANISH), None)
        if fault is None:
            return self.api.answer(request), None
        instead = fault.reply(asking)
        return (fault.changed(self.api.answer(request)), fault) if instead is None else (instead, None)

    def __enter__(self) -> "Self":
        """Begin to answer."""
        self._thread.start()
        self._stepping.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop answering, and end every open connection."""
        self._stopped.set()
        self.api.close()
        self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()
        self._thread.join()
        self._stepping.join()

    def _step(self) -> None:
        """Let what was made go on, as long as the server answers."""
        while not self._stopped.wait(STEP_S):
            self.api.progress.step()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    cluster: EmbeddedCluster
    date: str

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.ended = threading.Event()
        self.open: set[socket.socket] = set()

    def end_connections(self) -> None:
        self.ended.set()
        for connection in tuple(self.open):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away is no event of the cluster."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
        """Say nothing: `requests` tells what was asked."""

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002  the clock is the bundle's
        return self.server.date

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        body = self._body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(place.query, keep_blank_values=True))
        reply, fault = self.server.cluster.answer(Request(self.command, place.path, query, headers, body), place.query)
        self._send(reply, fault)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  the base class names them

    def _body(self) -> bytes | None:
        """Return the request's body, None if it was refused."""
        length = self.headers.get("Content-Length") or "0"
        refusal: RefusedError | None = None
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            refusal = bad_request("a request's body comes with its length here")
        elif int(length) > MAX_BODY_BYTES:
            message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
            refusal = RefusedError(413, "RequestEntityTooLarge", message)
        if refusal is None:
            return self.rfile.read(int(length))
        self.close_connection = True
        self._send(refusal.reply(), None)
        return None

    def _send(self, reply: Reply, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else None
        if kind is FaultKind.RESET:
            self._reset()
            return
        self.send_response_only(reply.status)
        self.send_header("Date", self.server.date)
        self.send_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.stream is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._stream(reply.stream)
            return
        self.send_header("Content-Length", str(sum(map(len, reply.parts))))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and kind in {FaultKind.RESET_IN_BODY, FaultKind.STALL, FaultKind.SLOW}:
            self._send_badly(reply.body, fault)
            return
        for part in reply.parts:
            self.wfile.write(part)

    def _send_badly(self, body: bytes, fault: Fault) -> None:
        if fault.kind is FaultKind.SLOW:
            size = max(1, -(-len(body) // _PIECES))
            for start in range(0, len(body), size):
                self.wfile.write(body[start : start + size])
                self.server.ended.wait(fault.amount / _PIECES)
            return
        self.wfile.write(body[: len(body) // 2])
        if fault.kind is FaultKind.STALL:
            self.server.ended.wait(fault.amount)
        self._reset()

    def _reset(self) -> None:
        """End the connection so that the client's kernel says that it was reset."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # it holds the socket open
        self.connection.close()

    def _stream(self, chunks: Iterator[bytes]) -> None:
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")
