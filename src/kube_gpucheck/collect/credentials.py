"""As whom the API server is asked: fixed credentials, a token file that rotates, a program that gives them.

What may change during a run is asked for again when it has expired or the server has refused it.
Says nothing about what the credentials may do.
"""

import atexit
import datetime
import json
import logging
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import msgspec

from kube_gpucheck.collect.connection import ConnectionFailedError, FailureKind
from kube_gpucheck.collect.kubeconfig import Access, Plugin, data_or_file, id_token, read_regular
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.errors import UsageError

logger = logging.getLogger(__name__)

TOKEN_FILE_S: Final = 50.0
"""How long a token that was read from a file is used before the file is read again, in seconds.

client-go reads it again after one minute, less ten seconds (`transport.NewCachedFileTokenSource`).
"""

PLUGIN_S: Final = 120.0
"""How long a credential plugin may take, in seconds: a person may have to log in in a browser."""

WORDS: Final = 500
"""How many characters of a plugin's complaint are quoted."""


class Credentials(msgspec.Struct, frozen=True):
    """What a request carries, and what the handshake shows."""

    authorization: str | None = None
    """The header's value."""
    certificate: bytes | None = None
    """The client's certificate and what it is signed with, as PEM."""
    key: bytes | None = None
    """The certificate's private key, as PEM."""


class CredentialSource(Protocol):
    """Gives credentials, and is told when they did not do. May be used from several threads."""

    def current(self, deadline: Deadline | None = None) -> Credentials:
        """Return the credentials to use now; nothing is waited for beyond the deadline.

        Raises:
            ConnectionFailedError: of kind CREDENTIALS, they cannot be had.
        """

    def refused(self, used: Credentials) -> None:
        """Take note that the server answered 401 to these: they are not given again if there can be others."""


class Fixed:
    """Credentials that stand in a kubeconfig."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def current(self, deadline: Deadline | None = None) -> Credentials:  # noqa: ARG002  they are there
        """Return them."""
        return self._credentials

    def refused(self, used: Credentials) -> None:
        """Keep them: there are no others."""


class TokenFile:
    """A token in a file that is replaced from time to time, as the kubelet does with a service account's."""

    def __init__(self, path: Path, first: Credentials, said: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the file, what goes with the token, and the clock, in seconds."""
        self._path = path
        self._credentials = first
        self._said = said
        self._clock = clock
        self._read_again: float | None = None
        self._lock = threading.Lock()

    def current(self, deadline: Deadline | None = None) -> Credentials:  # noqa: ARG002  a file is there at once
        """Return what the file held when it was last looked at, less than a minute ago.

        A file that cannot be read any more leaves the last token in use.
        """
        with self._lock:
            if self._read_again is None or self._clock() >= self._read_again:
                self._read()
                self._read_again = self._clock() + TOKEN_FILE_S
            return self._credentials

    def refused(self, used: Credentials) -> None:
        """Read the file again before the next request."""
        with self._lock:
            if used is self._credentials:
                self._read_again = None

    def _read(self) -> None:
        try:
            token = read_regular(self._path).decode("utf-8").strip()
            header = bearer(token, f"the token in {self._path}")
        except (OSError, UnicodeError, UsageError) as error:
            if self._credentials.authorization is not None:
                logger.warning("%s: the token file %s cannot be read again: %s", self._said, self._path, error)
                return
            why = error.strerror if isinstance(error, OSError) else error
            raise ConnectionFailedError(
                FailureKind.CREDENTIALS,
                f"{self._said} has its token in {self._path}, which cannot be read: {why}; give a file with a token",
            ) from error
        if header != self._credentials.authorization:
            self._credentials = msgspec.structs.replace(self._credentials, authorization=header)


class ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The credentials in a plugin's answer."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[datetime.datetime, msgspec.Meta(tz=True)] | None = None


class ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    """What a plugin prints (Kubernetes documentation, "client-go credential plugins")."""

    api_version: str
    kind: str
    status: ExecStatus | None = None


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


class FromPlugin:
    """Credentials that a program gives, run again when they have expired or were refused."""

    def __init__(
        self,
        access: Access,
        plugin: Plugin,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], datetime.datetime] = _utc_now,
        timeout_s: float = PLUGIN_S,
    ) -> None:
        """Take whom it is for, the program and the environment that it runs in."""
        self._said = f"{access.user_said} runs the credential plugin '{plugin.command}'"
        self._plugin = plugin
        self._cluster = _cluster_info(access) if plugin.provide_cluster_info else None
        self._environ = environ
        self._now = now
        self._timeout_s = timeout_s
        self._credentials: Credentials | None = None
        self._expires: datetime.datetime | None = None
        self._lock = threading.Lock()

    def current(self, deadline: Deadline | None = None) -> Credentials:
        """Return what the plugin gave last, or what it gives now if that has expired. Runs the program."""
        with self._lock:
            if self._credentials is None or (self._expires is not None and self._now() > self._expires):
                status = self._run(deadline)
                self._credentials = Credentials(
                    authorization=bearer(status.token, f"{self._said}, and its token") if status.token else None,
                    certificate=status.client_certificate_data.encode() if status.client_certificate_data else None,
                    key=status.client_key_data.encode() if status.client_key_data else None,
                )
                self._expires = status.expiration_timestamp
            return self._credentials

    def refused(self, used: Credentials) -> None:
        """Run the program again before the next request, unless it was since."""
        with self._lock:
            if used is self._credentials:
                self._credentials = None

    def _run(self, deadline: Deadline | None) -> ExecStatus:
        """Run the program, no longer than its own limit and the deadline; it ends with this process.

        Raises:
            ConnectionFailedError: it did not give credentials.
        """
        interactive = self._interactive()
        spec: dict[str, object] = {"interactive": interactive}
        if self._cluster is not None:
            spec["cluster"] = self._cluster
        asked = {"apiVersion": self._plugin.api_version, "kind": "ExecCredential", "spec": spec}
        variables = {variable.name: variable.value for variable in self._plugin.env or ()}
        began = time.monotonic()
        limit_s = self._timeout_s if deadline is None else min(self._timeout_s, deadline.left_s())
        if limit_s <= 0:
            raise self._failure("for which no time is left", None)
        try:
            process = subprocess.Popen(  # noqa: S603 -- the kubeconfig's program is run, as kubectl runs it
                [self._plugin.command or "", *(self._plugin.args or ())],
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                env={**self._environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            )
            done = _finished(process, limit_s)
        except FileNotFoundError as error:
            hint = _said(self._plugin.install_hint)
            raise self._failure(f"which is not installed; install it, or correct 'command'{hint}", error) from error
        except subprocess.TimeoutExpired as error:
            said = _said(error.stderr)
            raise self._failure(f"which did not end within {limit_s:.3g} s{said}", error) from error
        except (OSError, ValueError) as error:
            raise self._failure(f"which cannot be run: {error}; correct 'exec'", error) from error
        logger.debug("credential plugin %s: %.2f s", self._plugin.command, time.monotonic() - began)
        if done.returncode != 0:
            raise self._failure(f"which ended with status {done.returncode}{_said(done.stderr)}", None)
        return self._decoded(done.stdout)

    def _decoded(self, stdout: bytes) -> ExecStatus:
        """Return what the program printed.

        Raises:
            ConnectionFailedError: it is no answer, or one without credentials.
        """
        try:
            answer = msgspec.json.decode(stdout, type=ExecCredential)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise self._failure(f"which printed no ExecCredential: {error}", error) from error
        if answer.api_version != self._plugin.api_version:
            raise self._failure(
                f"whose answer has apiVersion {answer.api_version}, and was asked for {self._plugin.api_version}; "
                "correct 'apiVersion' or upgrade the plugin",
                None,
            )
        status = answer.status
        if status is None or not (status.token or status.client_certificate_data or status.client_key_data):
            raise self._failure("whose answer has neither a token nor a certificate", None)
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise self._failure("whose answer has a certificate or a key, and not both", None)
        return status

    def _interactive(self) -> bool:
        """Say whether the program may ask the person at the terminal (client-go, exec.go, `isInteractive`).

        Raises:
            ConnectionFailedError: it has to, and there is no terminal.
        """
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if self._plugin.interactive_mode == "Always" and not terminal:
            raise self._failure("which asks at a terminal, and standard input is none; run gpucheck in one", None)
        return terminal and self._plugin.interactive_mode != "Never"

    def _failure(self, what: str, error: Exception | None) -> ConnectionFailedError:
        way_out = "" if ";" in what else "; run 'kubectl get nodes' with the same kubeconfig to see it alone"
        failure = ConnectionFailedError(FailureKind.CREDENTIALS, f"{self._said}, {what}{way_out}")
        failure.__cause__ = error
        return failure


def _finished(process: "subprocess.Popen[bytes]", limit_s: float) -> "subprocess.CompletedProcess[bytes]":
    """Return what a program printed, and its status. One that takes too long is killed, as it is if this process ends.

    Raises:
        TimeoutExpired: it took too long.
    """
    atexit.register(process.kill)  # this thread is not waited for
    try:
        out, err = process.communicate(timeout=limit_s)
    except BaseException:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise
    finally:
        atexit.unregister(process.kill)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _said(text: bytes | str | None) -> str:
    """Return what a program said, after a colon, on one line, without control characters, bounded; empty if nothing."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    line = " ".join((text or "").split())
    return f": {''.join(letter if letter.isprintable() else '?' for letter in line[-WORDS:])}" if line else ""


def _cluster_info(access: Access) -> dict[str, object]:
    """Return what a plugin is told of the cluster (client-go, `ConfigToExecCluster`)."""
    cluster = access.cluster
    authority = authority_of(access)
    extension = next(
        (each.extension for each in cluster.extensions or () if each.name == "client.authentication.k8s.io/exec"), None
    )
    info: dict[str, object | None] = {
        "server": access.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": b64encode(authority).decode() if authority else None,
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": extension,
    }
    return {name: value for name, value in info.items() if value}


def bearer(token: str, said: str) -> str:
    """Return the header's value for a token.

    Raises:
        UsageError: what is there can be no token; `said` names it.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        why = "no token: it has other than letters, digits and signs" if token else "empty"
        raise UsageError(f"{said} is {why}; give the whole token, and nothing else")
    return f"Bearer {token}"


def authority_of(access: Access) -> bytes | None:
    """Return the certificates that a server's is trusted by, as PEM; None if what the system trusts is meant.

    Raises:
        UsageError: they cannot be read.
    """
    cluster = access.cluster
    said = f"{access.cluster_said}: certificate-authority"
    return data_or_file(cluster.certificate_authority_data, cluster.certificate_authority, said)


def fixed_credentials(access: Access) -> Credentials:
    """Return what stands in the kubeconfig; nothing for a server without TLS, which kubectl gives none either.

    Raises:
        UsageError: a certificate or a key cannot be read, or a token is none.
    """
    user = access.user
    if not access.server.startswith("https://"):
        return Credentials()
    certificate = data_or_file(
        user.client_certificate_data, user.client_certificate, f"{access.user_said}: client-certificate"
    )
    key = data_or_file(user.client_key_data, user.client_key, f"{access.user_said}: client-key")
    token = user.token or id_token(user)
    authorization = bearer(token, f"{access.user_said}: token") if token else None
    if user.username or user.password:
        both = f"{user.username or ''}:{user.password or ''}".encode()
        authorization = f"Basic {b64encode(both).decode('ascii')}"
    return Credentials(authorization, certificate, key)


def credentials_of(access: Access, fixed: Credentials, environ: Mapping[str, str]) -> CredentialSource:
    """Return where the credentials for a server come from.

    What stands in the kubeconfig wins over a plugin (client-go, exec.go, `UpdateTransportConfig`), and a
    token file over a token (`getUserIdentificationPartialConfig`).
    """
    user = access.user
    if not access.server.startswith("https://"):
        return Fixed(fixed)
    if user.token_file:
        return TokenFile(Path(user.token_file), fixed, access.user_said)
    if user.exec is not None and fixed == Credentials():
        return FromPlugin(access, user.exec, environ=environ)
    return Fixed(fixed)


def impersonation(access: Access) -> tuple[tuple[str, str], ...]:
    """Return the headers that ask the server to answer as somebody else; none if the kubeconfig asks for nobody.

    client-go, `transport.impersonatingRoundTripper`; the `kubernetes` package knows nothing of it.

    Raises:
        UsageError: a name can be no header.
    """
    user = access.user
    if not user.impersonate:
        return ()
    headers = [("Impersonate-User", user.impersonate)]
    if user.impersonate_uid:
        headers.append(("Impersonate-Uid", user.impersonate_uid))
    headers += [("Impersonate-Group", group) for group in user.impersonate_groups or ()]
    for name, values in (user.impersonate_extra or {}).items():
        escaped = quote(name, safe="!#$&'*+-.^_`|~")
        headers += [(f"Impersonate-Extra-{escaped}", value) for value in values]
    wrong = next((name for name, value in headers if not value.isprintable()), None)
    if wrong:
        raise UsageError(f"{access.user_said}: what becomes the header {wrong} has control characters; remove them")
    # http.client sends headers as Latin-1, Go as the bytes that they are
    return tuple((name, value.encode("utf-8").decode("latin-1")) for name, value in headers)
