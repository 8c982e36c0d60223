"""Which API server is meant, and as whom: kubeconfig files and service accounts, read as kubectl reads them.

Reads files and the environment, and starts nothing. The `kubernetes` package's own reader is not
used, because it differs from kubectl: the last of several files sets the current context, not the
first; a user's relative paths count from the cluster's file; a plugin that does not run is a log
line and a request without credentials; impersonation is not known. The rules here are client-go's
(`tools/clientcmd/loader.go`, `client_config.go`, `validation.go`), each cited where it is followed.
"""

import base64
import binascii
import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

import msgspec
import yaml

from kube_gpucheck.errors import UsageError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account (client-go, `rest.InClusterConfig`)."""


_HOST: Final = re.compile(r"(?:[^:@\[\]]*|\[[^\[\]]*\])(?::\d*)?")
"""A host's name or address, and a port."""


class Extension(msgspec.Struct, frozen=True):
    """Something about a cluster that only one program understands."""

    name: str
    extension: object = None


class Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    """A kubeconfig's `clusters[].cluster`."""

    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None
    disable_compression: bool | None = None
    extensions: tuple[Extension, ...] | None = None


class Variable(msgspec.Struct, frozen=True):
    """An environment variable that a plugin gets."""

    name: str
    value: str = ""


class Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """A program that gives the credentials: a kubeconfig's `users[].user.exec`."""

    command: str | None = None
    api_version: str | None = None
    args: tuple[str, ...] | None = None
    env: tuple[Variable, ...] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class AuthProvider(msgspec.Struct, frozen=True):
    """What came before plugins: a kubeconfig's `users[].user.auth-provider`."""

    name: str = ""
    config: dict[str, object] | None = None


class User(msgspec.Struct, frozen=True, rename="kebab"):
    """A kubeconfig's `users[].user`."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")
    impersonate_uid: str | None = msgspec.field(default=None, name="as-uid")
    impersonate_groups: tuple[str, ...] | None = msgspec.field(default=None, name="as-groups")
    impersonate_extra: dict[str, tuple[str, ...]] | None = msgspec.field(default=None, name="as-user-extra")
    exec: Plugin | None = None
    auth_provider: AuthProvider | None = None


class Context(msgspec.Struct, frozen=True):
    """A kubeconfig's `contexts[].context`."""

    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class NamedCluster(msgspec.Struct, frozen=True):
    """One of a kubeconfig's `clusters`."""

    name: str
    cluster: Cluster | None = None


class NamedUser(msgspec.Struct, frozen=True):
    """One of a kubeconfig's `users`."""

    name: str
    user: User | None = None


class NamedContext(msgspec.Struct, frozen=True):
    """One of a kubeconfig's `contexts`."""

    name: str
    context: Context | None = None


class Kubeconfig(msgspec.Struct, frozen=True, rename="kebab"):
    """One kubeconfig file, as it stands there."""

    current_context: str | None = None
    clusters: tuple[NamedCluster, ...] | None = None
    users: tuple[NamedUser, ...] | None = None
    contexts: tuple[NamedContext, ...] | None = None


class Access(msgspec.Struct, frozen=True):
    """One API server, and as whom it is asked: all that a connection is made from, with absolute paths."""

    source: str
    """Where this was found, in words: the file, or that this is a pod."""
    context: str
    """The kubeconfig's context, or `in-cluster`."""
    namespace: str
    """What is meant where no namespace is named."""
    server: str
    """With its scheme and without a slash at the end."""
    cluster: Cluster
    user: User
    cluster_said: str
    """The cluster's entry, as a message names it."""
    user_said: str
    """The user's entry, as a message names it."""

    def __str__(self) -> str:
        """Say which cluster this is and where it was found."""
        return f"{self.server}, {self.source}"


Named = TypeVar("Named", NamedCluster, NamedUser, NamedContext)


def find_cluster(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    account: Path = SERVICE_ACCOUNT,
) -> Access | None:
    """Return the cluster that kubectl would talk to, or None if nothing names one.

    In this order: `kubeconfig` (`--kubeconfig`), the files that `KUBECONFIG` names, `~/.kube/config`,
    the service account of the pod that this runs in. Of several files the first that sets something
    wins; files that are not there are passed over, but for one given by `--kubeconfig`.

    Raises:
        UsageError: a file cannot be read or is no kubeconfig, or has no such context, cluster or user.
    """
    files = [(path, _read(path)) for path in _files(kubeconfig, environ)]
    if any(file.contexts or file.clusters or file.current_context for _, file in files):
        return _access(files, context)
    if kubeconfig is not None:
        raise UsageError(f"{kubeconfig}: it has no contexts; give a kubeconfig that 'kubectl config view' shows")
    inside = _inside(environ, account)
    if context is not None:
        looked = f"{_named(files)} has none" if files else "there is no kubeconfig"
        raise UsageError(f"no context '{context}': {looked}; name the file with '--kubeconfig'")
    return inside


def _files(kubeconfig: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files to read, in order; one of `KUBECONFIG` or the home that is not there is left out."""
    if kubeconfig is not None:
        yield kubeconfig
        return
    listed = environ.get("KUBECONFIG", "")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path("~").expanduser()
    # client-go, NewDefaultClientConfigLoadingRules: where KUBECONFIG says anything, the home's file is not read
    names = dict.fromkeys(listed.split(os.pathsep)) if listed else [str(home / ".kube" / "config")]
    yield from (Path(name) for name in names if name and Path(name).exists())


def _read(path: Path) -> Kubeconfig:
    """Return one file's content; one that is empty has nothing in it.

    Raises:
        UsageError: it cannot be read, or is no kubeconfig.
    """
    way_out = "give a kubeconfig with '--kubeconfig', or in KUBECONFIG"
    try:
        content = yaml.safe_load(read_regular(path))
        return Kubeconfig() if content is None else msgspec.convert(content, Kubeconfig)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; {way_out}") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; {way_out}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {_one_line(error)}, which is no kubeconfig; {way_out}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: it is no YAML: {_one_line(error)}; {way_out}") from error


def _one_line(error: Exception) -> str:
    """Return an error's words on one line, at most 300 characters of them."""
    return " ".join(str(error).split())[:300]


def _named(files: list[tuple[Path, Kubeconfig]]) -> str:
    return ", ".join(str(path) for path, _ in files)


def _find(entries: "list[tuple[Path, tuple[Named, ...] | None]]", name: str) -> "tuple[Path, Named] | None":
    """Return the first entry of a name, and the file that it is in."""
    return next(((path, entry) for path, named in entries for entry in named or () if entry.name == name), None)


def _access(files: list[tuple[Path, Kubeconfig]], wanted: str | None) -> Access:
    """Return what one context names.

    Raises:
        UsageError: there is no such context, cluster or user, or one of them contradicts itself.
    """
    said = _named(files)
    name = wanted or next((file.current_context for _, file in files if file.current_context), None)
    known = ", ".join(sorted({entry.name for _, file in files for entry in file.contexts or ()})) or "none"
    if not name:
        raise UsageError(f"{said}: current-context is empty; name one of its contexts with '--context': {known}")
    found = _find([(path, file.contexts) for path, file in files], name)
    if found is None:
        which = "--context" if wanted else "current-context"
        raise UsageError(f"{said}: no context '{name}', which {which} names; the contexts are: {known}")
    path, entry = found
    context = entry.context or Context()
    cluster_file, cluster = _cluster(files, context.cluster, f"{path}: context '{name}'")
    user_file, user = _user(files, context.user, f"{path}: context '{name}'")
    server, login = _server(cluster, user)
    cluster = msgspec.structs.replace(cluster, server=server)
    return Access(
        source=f"context '{name}' of {path}",
        context=name,
        namespace=context.namespace or "default",
        server=server,
        cluster=cluster,
        user=_logged_in(user, login),
        cluster_said=f"{cluster_file}: cluster '{context.cluster}'",
        user_said=f"{user_file}: user '{context.user}'",
    )


def _cluster(files: list[tuple[Path, Kubeconfig]], name: str, context: str) -> tuple[Path, Cluster]:
    """Return a cluster's entry with absolute paths, and its file.

    Raises:
        UsageError: there is none, or it contradicts itself.
    """
    found = _find([(path, file.clusters) for path, file in files], name)
    if found is None:
        raise UsageError(f"{context}: no cluster '{name}' in {_named(files)}; add it, or name another with '--context'")
    path, entry = found
    cluster = entry.cluster or Cluster()
    if not cluster.server:
        raise UsageError(f"{path}: cluster '{name}' has no server; give its address as 'server: https://HOST:6443'")
    if cluster.insecure_skip_tls_verify and (cluster.certificate_authority or cluster.certificate_authority_data):
        # client-go, transport.TLSConfigFor, refuses the two together
        raise UsageError(
            f"{path}: cluster '{name}' has a certificate-authority and insecure-skip-tls-verify, "
            "and kubectl takes one of them; remove the latter"
        )
    return path, msgspec.structs.replace(cluster, certificate_authority=_absolute(cluster.certificate_authority, path))


def _user(files: list[tuple[Path, Kubeconfig]], name: str, context: str) -> tuple[Path, User]:
    """Return a user's entry with absolute paths, and its file; a context without a user has an empty one.

    Raises:
        UsageError: there is none of the name, or it contradicts itself.
    """
    if not name:
        return files[0][0], User()
    found = _find([(path, file.users) for path, file in files], name)
    if found is None:
        raise UsageError(f"{context}: no user '{name}' in {_named(files)}; add it, or name another with '--context'")
    path, entry = found
    user = entry.user or User()
    wrong = _contradiction(user)
    if wrong:
        raise UsageError(f"{path}: user '{name}' has {wrong}")
    plugin = user.exec
    if plugin is not None and plugin.command and os.sep in plugin.command:
        plugin = msgspec.structs.replace(plugin, command=_absolute(plugin.command, path))
    return path, msgspec.structs.replace(
        user,
        client_certificate=_absolute(user.client_certificate, path),
        client_key=_absolute(user.client_key, path),
        token_file=_absolute(user.token_file, path),
        exec=plugin,
    )


def _contradiction(user: User) -> str | None:
    """Return what of a user cannot be, with the way out; None if nothing (client-go, `validateAuthInfo`)."""
    if (user.client_certificate or user.client_certificate_data) and not (user.client_key or user.client_key_data):
        return "a client-certificate and no client-key; add 'client-key' or 'client-key-data'"
    if user.token and (user.username or user.password):
        return "a token and a password, and kubectl takes one of them; remove the other"
    if (user.impersonate_uid or user.impersonate_groups or user.impersonate_extra) and not user.impersonate:
        return "as-uid, as-groups or as-user-extra, and no as; say whom to impersonate with 'as'"
    if user.exec is not None and user.auth_provider is not None:
        return "exec and auth-provider, and kubectl takes one of them; remove auth-provider"
    if user.exec is not None and not (user.exec.command and user.exec.api_version):
        return "an exec without a command or an apiVersion; add what is missing"
    if user.auth_provider is not None and not id_token(user):
        return (
            f"the auth-provider '{user.auth_provider.name}', which gpucheck does not know (kubectl 1.26 removed gcp "
            "and azure); use the credential plugin that took its place, as 'exec'"
        )
    return None


def id_token(user: User) -> str | None:
    """Return the token that the OpenID Connect auth-provider keeps; None if the user has none.

    It is used as it stands: kubectl renews it when it has expired and writes it back.
    """
    provider = user.auth_provider
    token = (provider.config or {}).get("id-token") if provider is not None and provider.name == "oidc" else None
    return token if isinstance(token, str) and token else None


def _absolute(name: str | None, file: Path) -> str | None:
    """Return a path that counts from a kubeconfig's folder as one that counts from nowhere."""
    return os.path.normpath(file.absolute().parent / name) if name else None


def without_login(address: str) -> tuple[str, str]:
    """Return an address without the name and password that may stand in it, and these.

    Also of one that is none: it is quoted in a message. A host and port that are such end at the first slash.
    """
    scheme, mark, rest = address.rpartition("://")
    authority, slash, path = rest.partition("/")
    login, _, host = authority.rpartition("@")
    if "@" in path and not _HOST.fullmatch(host):  # a slash in the password
        login, _, host = rest.rpartition("@")
        slash = path = ""
    return f"{scheme}{mark}{host}{slash}{path}", login


def _logged_in(user: User, login: str) -> User:
    """Return a user who has the name and password of the server's address, where nothing else says who it is.

    Go sends them where a request has no Authorization yet (net/http, client.go, `send`).
    """
    if not login or user.token or user.token_file or user.username or user.exec or user.auth_provider:
        return user
    name, _, password = login.partition(":")
    return msgspec.structs.replace(user, username=unquote(name), password=unquote(password))


def _server(cluster: Cluster, user: User) -> tuple[str, str]:
    """Return a server's address with its scheme, without query, fragment, last slash and login; and that login."""
    server, login = without_login((cluster.server or "").split("?")[0].split("#")[0].rstrip("/"))
    if "://" in server:
        return server, login
    # client-go, rest.DefaultServerURL: a host and port alone are TLS where anything of TLS is configured
    tls = (
        cluster.certificate_authority
        or cluster.certificate_authority_data
        or cluster.insecure_skip_tls_verify
        or user.client_certificate
        or user.client_certificate_data
    )
    return f"{'https' if tls else 'http'}://{server}", login


def read_regular(path: Path) -> bytes:
    """Return a file's content. What is no regular file may never end; a pipe that the shell opened (`<(…)`) does.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()) and path.parent != Path("/dev/fd"):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.read_bytes()


def _inside(environ: Mapping[str, str], account: Path) -> Access | None:
    """Return the cluster of the pod that this runs in; None if it is no pod with a service account.

    client-go, `inClusterClientConfig.Possible` and `rest.InClusterConfig`.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (account / "token").is_file():
        return None
    authority = account / "ca.crt"
    space = account / "namespace"
    namespace = environ.get("POD_NAMESPACE") or (space.read_text("utf-8").strip() if space.is_file() else "")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(
        source=f"the service account of this pod ({account})",
        context="in-cluster",
        namespace=namespace or "default",
        server=server,
        cluster=Cluster(server=server, certificate_authority=str(authority) if authority.is_file() else None),
        user=User(token_file=str(account / "token")),
        cluster_said=f"the service account in {account}",
        user_said=f"the service account in {account}",
    )


def data_or_file(data: str | None, file: str | None, said: str) -> bytes | None:
    """Return what a field holds in base64, or else what the file holds that it names; None if neither is given.

    `said` names the field in messages. The data wins, as in client-go's `loadTLSFiles`.

    Raises:
        UsageError: the data is no base64, or the file cannot be read.
    """
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"{said}-data is no base64: {error}; copy it whole") from error
    if file:
        try:
            return read_regular(Path(file))
        except OSError as error:
            raise UsageError(f"{said} is {file}: {error.strerror}; give the file, or '--kubeconfig'") from error
    return None
