"""An authenticated way to one API server: what a request gives, and how it can fail.

Which server is meant is `kubeconfig.py`'s, as whom it is asked `credentials.py`'s, how bytes go to
and fro `transport.py`'s. Requests are retried in `api.py`, never here.
"""

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from kube_gpucheck.collect.kubeconfig import SERVICE_ACCOUNT, Access, find_cluster
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.errors import GpucheckError, UsageError


class FailureKind(enum.Enum):
    """Why no answer came."""

    UNREACHABLE = "unreachable"
    """The name does not resolve, or nothing listens there."""
    RESET = "reset"
    """The connection broke, before the answer or in the middle of its body."""
    TIMEOUT = "timeout"
    """Nothing came within the time that the caller gave."""
    TLS = "tls"
    """The server's certificate is not trusted, or the handshake ended."""
    CREDENTIALS = "credentials"
    """A program or a file that gives the credentials did not."""


class ConnectionFailedError(GpucheckError):
    """No answer, or no whole one, came to a request."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        """Keep why."""
        super().__init__(reason)
        self.kind = kind


class Answer(Protocol):
    """An answer whose head has come; its body is read by the caller, and then closed."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, unfolded if it was sent with gzip.

        Raises:
            ConnectionFailedError: the body broke off, stalled longer than the request's timeout, or is no gzip.
        """

    def close(self) -> None:
        """Give the connection back; one whose body was not read to its end is thrown away."""


class Connection(Protocol):
    """An authenticated way to one API server. May be used from several threads."""

    server: str
    """Its address, as the configuration says."""
    context: str
    """The kubeconfig's context, or `in-cluster`."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Send one request, and return its answer, whatever its status.

        `timeout_s` bounds each wait for bytes; `deadline` a program that has to give the credentials first.

        Raises:
            ConnectionFailedError: no answer came.
        """


def open_connection(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    account: Path = SERVICE_ACCOUNT,
) -> Connection:
    """Return a connection to the cluster that kubectl would talk to (`find_cluster`). Asks the server nothing.

    Raises:
        UsageError: nothing names a cluster, or the kubeconfig is wrong.
    """
    access = find_cluster(kubeconfig, context, environ=environ, account=account)
    if access is None:
        raise UsageError(
            "no cluster: KUBECONFIG names no file that is there, nor is there ~/.kube/config, and this is no pod with "
            "a service account; name a kubeconfig with '--kubeconfig'"
        )
    return connect(access, environ=environ)


def connect(access: Access, *, environ: Mapping[str, str] = os.environ) -> Connection:
    """Return a connection to a cluster that was found. Asks the server nothing.

    Raises:
        UsageError: a certificate, a key, a token or a proxy of the kubeconfig cannot be used.
    """
    from kube_gpucheck.collect.transport import HttpConnection  # noqa: PLC0415 -- loads kubernetes and urllib3

    return HttpConnection(access, environ=environ)
