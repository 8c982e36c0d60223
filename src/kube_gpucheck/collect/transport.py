"""Requests over HTTP and TLS, on connections that are kept and shared by threads.

The `kubernetes` package's REST client makes the pool (proxies, SOCKS, keep-alive), and urllib3 sends.
Redirects are not followed and nothing is tried twice: retrying is `api.py`'s. Imported only when a
cluster is asked: the package takes 0.2 s to load, and before its version 37, with all its models, 0.7 s.
"""

import logging
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3 import exceptions
from urllib3.util import make_headers, parse_url

from kube_gpucheck.collect.connection import ConnectionFailedError, FailureKind
from kube_gpucheck.collect.credentials import (
    Credentials,
    authority_of,
    credentials_of,
    fixed_credentials,
    impersonation,
)
from kube_gpucheck.collect.kubeconfig import Access, without_login
from kube_gpucheck.collect.proxy import proxy_for
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.errors import UsageError

logger = logging.getLogger(__name__)

CONNECTIONS: Final = 16
"""How many connections are kept open for the next request."""

CHUNK: Final = 1 << 17
"""How many bytes of a body are handed on at a time, before unfolding."""


class HttpAnswer:
    """An answer of urllib3's."""

    def __init__(self, response: urllib3.BaseHTTPResponse, said: str) -> None:
        """Take the response, and the request in words."""
        self.status: int = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._said = said

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, unfolded if it was sent with gzip.

        Raises:
            ConnectionFailedError: the body broke off, stalled longer than the request's timeout, or is no gzip.
        """
        try:
            yield from self._response.stream(CHUNK, decode_content=True)
        except exceptions.ReadTimeoutError as error:
            raise ConnectionFailedError(FailureKind.TIMEOUT, f"{self._said}: its body stalled") from error
        except exceptions.DecodeError as error:
            raise ConnectionFailedError(FailureKind.RESET, f"{self._said}: its body is no gzip") from error
        except (exceptions.HTTPError, OSError) as error:
            why = f"{self._said}: its body broke off: {_why(error)}"
            raise ConnectionFailedError(FailureKind.RESET, why) from error

    def close(self) -> None:
        """Give the connection back; one whose body was not read to its end is thrown away."""
        self._response.close()
        self._response.release_conn()


class HttpConnection:
    """An authenticated way to one API server. May be used from several threads."""

    def __init__(self, access: Access, *, environ: Mapping[str, str]) -> None:
        """Take what a kubeconfig or a service account says. Reads the files that it names.

        Raises:
            UsageError: a certificate, a key, a token or a proxy cannot be used.
        """
        self.server = access.server
        self.context = access.context
        self.namespace = access.namespace
        self._access = access
        self._settings = _settings(access, environ)
        self._authority = authority_of(access)
        self._headers = (("User-Agent", "gpucheck"), *impersonation(access))
        self._lock = threading.Lock()
        self._shown = fixed_credentials(access)
        self._pool = self._new_pool(self._shown)
        self._credentials = credentials_of(access, self._shown, environ)

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
    ) -> HttpAnswer:
        """Send one request, and return its answer, whatever its status.

        `timeout_s` bounds each wait for bytes; `deadline` a program that has to give the credentials first.

        Raises:
            ConnectionFailedError: no answer came.
        """
        try:
            credentials = self._credentials.current(deadline)
            pool = self._pool_for(credentials)
        except UsageError as error:  # what a plugin gave
            raise ConnectionFailedError(FailureKind.CREDENTIALS, str(error)) from error
        sent = urllib3.HTTPHeaderDict(headers or {})
        for name, value in self._headers:
            sent.add(name, value)
        if credentials.authorization is not None:
            sent["Authorization"] = credentials.authorization
        said = f"{method} {path}"
        began = time.monotonic()
        try:
            response = pool.request(
                method,
                f"{self.server}{path}{'?' + urlencode(query) if query else ''}",
                body=body,
                headers=sent,
                timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (exceptions.HTTPError, OSError, UnicodeError) as error:
            raise self._failure(said, error, timeout_s) from error
        logger.debug("%s: %d, %.3f s", said, response.status, time.monotonic() - began)
        if response.status == 401:  # noqa: PLR2004 -- Unauthorized: the next request may do better
            self._credentials.refused(credentials)
        return HttpAnswer(response, said)

    def _pool_for(self, credentials: Credentials) -> urllib3.PoolManager:
        """Return connections that were opened with the client certificate that is to be shown."""
        with self._lock:
            if (credentials.certificate, credentials.key) != (self._shown.certificate, self._shown.key):
                self._pool = self._new_pool(credentials)
                self._shown = credentials
            return self._pool

    def _new_pool(self, credentials: Credentials) -> urllib3.PoolManager:
        """Return a pool without connections.

        Raises:
            UsageError: the authority or the client certificate cannot be used, or the proxy is of no known kind.
        """
        try:
            pool: urllib3.PoolManager = RESTClientObject(self._settings).pool_manager
        except (exceptions.HTTPError, ValueError, ImportError) as error:
            raise UsageError(
                f"{self._access.cluster_said}: the proxy {without_login(self._settings.proxy or '')[0]} cannot be "
                f"used: {error}; "
                "give an http or https proxy (a SOCKS proxy needs the package PySocks)"
            ) from error
        if self.server.startswith("https://"):
            # Up to its version 35 the package trusts the public authorities of `certifi` where none is given, not
            # the system's; and urllib3's context refuses authorities that Go takes, from Python 3.13 on
            pool.connection_pool_kw["ssl_context"] = self._tls(credentials)
            pool.connection_pool_kw["ca_certs"] = None
        return pool

    def _tls(self, credentials: Credentials) -> ssl.SSLContext:
        """Return how a handshake is made: trusted is the authority that is given, or else what the system trusts.

        Raises:
            UsageError: the authority or the client certificate cannot be used.
        """
        try:
            context = ssl.create_default_context(cadata=self._authority.decode("ascii") if self._authority else None)
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                f"{self._access.cluster_said}: certificate-authority holds no certificate: {_why(error)}; copy it whole"
            ) from error
        # Go's crypto/x509 takes certificates without the extensions that RFC 5280 asks for, and an
        # intermediate authority as a root; Python 3.13 made the first a fault (Python documentation,
        # "ssl.create_default_context")
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not self._settings.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.certificate is not None:
            self._show(context, credentials)
        return context

    def _show(self, context: ssl.SSLContext, credentials: Credentials) -> None:
        """Load a client certificate. The key lies in a file, which Python's `ssl` asks for, while it is read.

        Raises:
            UsageError: it is none, or its key is another's or has a password.
        """
        with tempfile.TemporaryDirectory(prefix="gpucheck-") as folder:
            pair = Path(folder, "client.pem")
            pair.touch(mode=0o600)
            pair.write_bytes(b"\n".join((credentials.certificate or b"", credentials.key or b"")))
            try:
                context.load_cert_chain(pair, password=lambda: b"")
            except (ssl.SSLError, ValueError, OSError) as error:
                raise UsageError(
                    f"{self._access.user_said}: client-certificate and client-key are no pair that can be used: "
                    f"{_why(error)}; give a certificate with its own key, without a password"
                ) from error

    def _failure(self, said: str, error: Exception, timeout_s: float) -> ConnectionFailedError:
        """Return why no answer came, in words."""
        if isinstance(error, exceptions.MaxRetryError) and isinstance(error.reason, Exception):
            error = error.reason
        through = f" through the proxy {_shown(self._settings.proxy)}" if self._settings.proxy else ""
        where = f"{said}{through}"
        match error:
            case exceptions.SSLError() | ssl.SSLError():
                return ConnectionFailedError(FailureKind.TLS, f"{where}: {self._tls_words(error)}")
            case exceptions.NewConnectionError():
                return ConnectionFailedError(FailureKind.UNREACHABLE, f"{where}: {_why(error)}")
            case exceptions.TimeoutError():
                return ConnectionFailedError(FailureKind.TIMEOUT, f"{where}: nothing came within {timeout_s:g} s")
            case exceptions.ProxyError() | exceptions.LocationValueError() | UnicodeError():
                return ConnectionFailedError(FailureKind.UNREACHABLE, f"{where}: {_why(error)}")
            case _:
                return ConnectionFailedError(FailureKind.RESET, f"{where}: {_why(error)}")

    def _tls_words(self, error: Exception) -> str:
        why = _why(error)
        if isinstance(_innermost(error), ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted, as {self._access.cluster_said} has it: {why}"
        if "wrong version number" in why.lower() or "record layer" in why.lower():
            return f"{self.server} speaks no TLS, as {self._access.cluster_said} has it: {why}"
        return f"the handshake ended: {why}"


def _settings(access: Access, environ: Mapping[str, str]) -> "Configuration":
    """Return the package's settings for one server.

    Effect: with `insecure-skip-tls-verify`, urllib3 warns of it no more in this process; kubectl is silent, too.

    Raises:
        UsageError: an address is none.
    """
    way_out = "which is no address; give one as https://HOST:PORT"
    if not _is_address(access.server):
        raise UsageError(f"{access.cluster_said}: server is {access.server}, {way_out}")
    proxy = proxy_for(access.server, access.cluster.proxy_url, environ)
    if proxy is not None and not _is_address(proxy):
        shown = without_login(proxy)[0]
        raise UsageError(f"{access.cluster_said}: its proxy (proxy-url, or of the environment) is {shown}, {way_out}")
    settings = Configuration()
    settings.host = access.server
    settings.verify_ssl = not access.cluster.insecure_skip_tls_verify
    if access.server.startswith("https://"):
        settings.tls_server_name = access.cluster.tls_server_name
    settings.connection_pool_maxsize = CONNECTIONS
    settings.retries = False
    # The package's own idea of proxies (from its version 34 on it reads the environment) is not Go's: `proxy.py`
    settings.proxy = proxy
    settings.no_proxy = ""
    user = parse_url(proxy).auth if proxy else None
    settings.proxy_headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
    if not settings.verify_ssl:
        urllib3.disable_warnings(exceptions.InsecureRequestWarning)
    return settings


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and parse_url(text).host is not None
    except (ValueError, exceptions.LocationValueError):
        return False


def _shown(proxy: str) -> str:
    """Return a proxy's address without the password that may stand in it."""
    address = parse_url(proxy)
    return str(address._replace(auth=None))


def _innermost(error: BaseException) -> BaseException:
    """Return the error that was there first: the operating system's or OpenSSL's."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        nested = next((each for each in inner.args if isinstance(each, BaseException)), None)
        inner = nested or inner.__cause__ or inner.__context__
    return seen[-1]


def _why(error: BaseException) -> str:
    """Return the words of the error that was there first, on one line."""
    last = _innermost(error)
    words = getattr(last, "verify_message", None) or getattr(last, "strerror", None) or str(last) or type(last).__name__
    return " ".join(str(words).split())[:300]
