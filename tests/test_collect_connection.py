"""Connections: what kubectl would send is sent, what it would trust is trusted, and what fails says why.

Against servers of the standard library on loopback, real credential plugins and a real forward
proxy. Where it can be had, the answer to "as kubectl does" is kubectl's own.
"""

import base64
import contextlib
import gzip
import http.server
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from kube_gpucheck.collect.connection import Connection, ConnectionFailedError, FailureKind, connect, open_connection
from kube_gpucheck.collect.credentials import Credentials, FromPlugin, TokenFile
from kube_gpucheck.collect.kubeconfig import find_cluster
from kube_gpucheck.collect.proxy import proxy_for
from kube_gpucheck.collect.waiting import Deadline
from kube_gpucheck.errors import UsageError

BESIDE_PYTHON = Path(sys.executable).with_name("kubectl")
KUBECTL = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("kubectl") or "kubectl"
V1 = "client.authentication.k8s.io/v1"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    client: str | None
    connection: int

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def identity(self) -> dict[str, object]:
        """All that says who asks and for what."""
        kept = ("authorization", "impersonate-")
        said = sorted((k.lower(), v) for k, v in self.headers if k.lower().startswith(kept))
        return {"path": self.path, "said": said, "client": self.client}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "ApiServer"

    def do_GET(self) -> None:
        peer: Any = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        names = [value for part in (peer or {}).get("subject", ()) for key, value in part if key == "commonName"]
        client = names[0] if names else None
        self.server.seen.append(
            Seen(self.command, self.path, tuple(self.headers.items()), client, self.client_address[1])
        )
        status, headers, body = self.server.answer(self)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if int(headers.get("Content-Length", len(body))) > len(body):
            self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class ApiServer(http.server.ThreadingHTTPServer):
    """A server that writes down what arrives and answers as it is told."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.names: list[str | None] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        if self._context is None:
            return plain, address
        return self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *of: object) -> None:
        """Say nothing: clients that end a handshake are what is tested."""

    def answer(self, request: Handler) -> tuple[int, dict[str, str], bytes]:
        length = int(request.headers.get("Content-Length", 0))
        sent = request.rfile.read(length)
        return self.answers.pop(0) if self.answers else (200, {}, sent or b"{}")


@contextlib.contextmanager
def served(context: ssl.SSLContext | None = None) -> Iterator[ApiServer]:
    with ApiServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dataclass
class World:
    """A folder, a server with TLS, and who signs its certificates."""

    folder: Path
    authority: trustme.CA
    server: ApiServer
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server.server_port}"

    @property
    def trusted(self) -> dict[str, object]:
        return {"certificate-authority-data": b64(self.authority.cert_pem.bytes())}

    def kubeconfig(
        self, user: object = None, cluster: Mapping[str, object] | None = None, name: str = "config"
    ) -> Path:
        return write(
            self.folder / name, user=user or {}, cluster={"server": self.url, **self.trusted, **(cluster or {})}
        )

    def plugin(self, script: str, **more: object) -> dict[str, object]:
        """Write a credential plugin; return the user that runs it."""
        path = self.folder / f"plugin-{len([*self.folder.glob('plugin-*')])}"
        path.write_text(f"#!{sys.executable}\nimport json, os, pathlib, sys\n{script}\n", encoding="utf-8")
        path.chmod(0o700)
        return {"exec": {"apiVersion": V1, "command": f"./{path.name}", "interactiveMode": "Never", **more}}

    def open(self, kubeconfig: Path) -> Connection:
        return open_connection(kubeconfig, environ={"PATH": os.environ["PATH"], **self.environ})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def write(path: Path, *, user: object, cluster: Mapping[str, object], name: str = "a") -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": name,
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": name, "user": user}],
            }
        ),
        encoding="utf-8",
    )
    return path


def body(connection: Connection, path: str = "/api", **more: Any) -> bytes:
    answer = connection.request("GET", path, timeout_s=more.pop("timeout_s", 10), **more)
    try:
        return b"".join(answer.chunks())
    finally:
        answer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def world(tmp_path: Path, authority: trustme.CA) -> Iterator[World]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "api.cluster.test").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    with served(context) as server:
        context.sni_callback = lambda _, name, __: server.names.append(name)
        yield World(tmp_path, authority, server)


# --- what is sent, against kubectl ----------------------------------------------------------------


def client_pair(world: World) -> tuple[bytes, bytes]:
    issued = world.authority.issue_cert("jane.test", common_name="jane")
    return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


def users(world: World) -> dict[str, tuple[object, Mapping[str, object]]]:
    """Users, and what of the cluster goes with each, by a sentence's end."""
    certificate, key = client_pair(world)
    (world.folder / "jane.crt").write_bytes(certificate)
    (world.folder / "jane.key").write_bytes(key)
    (world.folder / "token").write_text("from-a-file\n", encoding="utf-8")
    answer = {"apiVersion": V1, "kind": "ExecCredential"}
    token = {**answer, "status": {"token": "from-a-plugin"}}
    pair = {**answer, "status": {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}}
    told = "cluster = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']['cluster']\n"
    told += "said = cluster['config']['audience'] + str(sorted(cluster)).replace(' ', '')\n"
    told += f"print(json.dumps({answer!r} | {{'status': {{'token': said}}}}))"
    described = {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "ours"}}]}
    return {
        "a token": ({"token": "abc"}, {}),
        "a token file": ({"tokenFile": "token"}, {}),
        "a token and a token file": ({"token": "abc", "tokenFile": "token"}, {}),
        "a password": ({"username": "jane", "password": "pä:ss"}, {}),
        "a certificate": ({"client-certificate-data": b64(certificate), "client-key-data": b64(key)}, {}),
        "certificate files": ({"client-certificate": "jane.crt", "client-key": "jane.key"}, {}),
        "a certificate and a token": (
            {"token": "abc", "client-certificate": "jane.crt", "client-key": "jane.key"},
            {},
        ),
        "somebody else": (
            {
                "token": "abc",
                "as": "jané",
                "as-uid": "1",
                "as-groups": ["system:masters", "b c"],
                "as-user-extra": {"acme.com/pro%ject": ["one", "two"]},
            },
            {},
        ),
        "a plugin's token": (world.plugin(f"print({json.dumps(token)!r})"), {}),
        "a plugin's certificate": (world.plugin(f"print({json.dumps(pair)!r})"), {}),
        "a plugin that is told of the cluster": (world.plugin(told, provideClusterInfo=True), described),
        "a token beside a plugin": ({"token": "abc", **world.plugin("sys.exit('not to be run')")}, {}),
        "a server below a path": ({"token": "abc"}, {"server": f"{world.url}/k8s/clusters/c-1/"}),
    }


SENTENCES = (
    "a token",
    "a token file",
    "a token and a token file",
    "a password",
    "a certificate",
    "certificate files",
    "a certificate and a token",
    "somebody else",
    "a plugin's token",
    "a plugin's certificate",
    "a plugin that is told of the cluster",
    "a token beside a plugin",
    "a server below a path",
)


@pytest.mark.parametrize("who", SENTENCES)
def test_a_request_says_who_asks_as_kubectls_does(world: World, who: str) -> None:
    every = users(world)
    assert tuple(every) == SENTENCES
    user, cluster = every[who]
    kubeconfig = world.kubeconfig(user, cluster)

    assert body(world.open(kubeconfig), "/version", query={"a": "b c"}) == b"{}"
    ours = world.server.seen[-1].identity
    kubectl("get", "--raw", "/version?a=b+c", kubeconfig=kubeconfig)

    assert ours == world.server.seen[-1].identity


def kubectl(*words: str, kubeconfig: Path | None = None, environ: dict[str, str] | None = None) -> str:
    given = [] if kubeconfig is None else [f"--kubeconfig={kubeconfig}"]
    done = subprocess.run(
        [KUBECTL, *given, *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **(environ or {})},
    )
    return done.stdout


# --- which cluster is meant ------------------------------------------------------------------------


def listed(path: Path, **parts: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(parts), encoding="utf-8")
    return path


@pytest.fixture
def three(world: World, tmp_path: Path) -> str:
    """KUBECONFIG with three files and an absent one, whose paths count from folders of their own."""
    one = listed(
        tmp_path / "one" / "config",
        contexts=[{"name": "first", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        users=[{"name": "u", "user": {"tokenFile": "token"}}],
    )
    two = listed(
        tmp_path / "two" / "config",
        **{"current-context": "first"},
        clusters=[{"name": "c", "cluster": {"server": world.url, "certificate-authority": "ca.crt"}}],
        contexts=[{"name": "first", "context": {"cluster": "other", "user": "other"}}],
    )
    three = listed(
        tmp_path / "three" / "config",
        **{"current-context": "second"},
        clusters=[{"name": "c", "cluster": {"server": "https://three.test:6443"}}],
        contexts=[{"name": "second", "context": {"cluster": "c", "user": "u"}}],
    )
    (tmp_path / "one" / "token").write_text("abc", encoding="utf-8")
    world.authority.cert_pem.write_to_path(str(tmp_path / "two" / "ca.crt"))
    return os.pathsep.join(map(str, (one, tmp_path / "absent", two, one, three)))


def test_of_several_files_the_first_that_says_something_wins_as_kubectls_does(world: World, three: str) -> None:
    environ = {"KUBECONFIG": three}
    body(open_connection(environ=environ), "/api")
    kubectl("get", "--raw", "/api", environ=environ)
    ours, kubectls = world.server.seen
    shown = json.loads(kubectl("config", "view", "--minify", "-o", "json", environ=environ))
    access = find_cluster(environ=environ)

    assert ours.identity == kubectls.identity
    assert ours.header("Authorization") == ["Bearer abc"]
    assert access is not None
    assert (access.context, access.namespace) == (
        shown["current-context"],
        shown["contexts"][0]["context"]["namespace"],
    )


def test_a_context_that_is_asked_for_is_taken_from_any_of_the_files(world: World, three: str) -> None:
    access = find_cluster(None, "second", environ={"KUBECONFIG": three})

    assert access is not None
    assert (access.context, access.namespace, access.server) == ("second", "default", world.url)


def test_the_homes_kubeconfig_is_read_where_nothing_else_is_named(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    path = write(tmp_path / ".kube" / "config", user={}, cluster={"server": "https://home.test"})
    access = find_cluster(environ={"HOME": str(tmp_path)})

    assert str(access) == f"https://home.test, context 'a' of {path}"
    assert find_cluster(environ={"HOME": str(tmp_path), "KUBECONFIG": "/absent/config"}) is None


def test_a_host_and_port_alone_are_tls_where_tls_is_configured(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", user={}, cluster={"server": "10.0.0.1:6443"})
    secure = write(tmp_path / "secure", user={}, cluster={"server": "10.0.0.1:6443", "insecure-skip-tls-verify": True})

    found = [find_cluster(path, environ={}) for path in (plain, secure)]
    assert [access.server for access in found if access] == ["http://10.0.0.1:6443", "https://10.0.0.1:6443"]


@pytest.fixture
def account(tmp_path: Path, authority: trustme.CA) -> Path:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("first\n", encoding="utf-8")
    (folder / "namespace").write_text("gpu\n", encoding="utf-8")
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    return folder


def test_in_a_pod_the_service_account_is_used(world: World, account: Path) -> None:
    inside = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(world.server.server_port)}
    access = find_cluster(environ={"HOME": "/absent", **inside}, account=account)
    assert access is not None
    assert (access.context, access.namespace, access.server) == ("in-cluster", "gpu", world.url)

    connection = connect(access, environ={})
    body(connection)
    assert connection.context == "in-cluster"
    assert world.server.seen[-1].header("Authorization") == ["Bearer first"]


def test_an_address_of_ipv6_is_put_in_brackets(account: Path) -> None:
    inside = {"HOME": "/absent", "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = find_cluster(environ=inside, account=account)
    assert access is not None
    assert access.server == "https://[fd00::1]:443"


def test_a_kubeconfig_wins_over_the_service_account(tmp_path: Path, account: Path) -> None:
    path = write(tmp_path / "config", user={}, cluster={"server": "https://home.test"})
    inside = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": "443"}
    access = find_cluster(environ={"KUBECONFIG": str(path), **inside}, account=account)
    assert access is not None
    assert access.context == "a"


def test_without_a_kubeconfig_outside_a_pod_there_is_no_cluster(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "", "KUBERNETES_SERVICE_PORT": "443"}
    assert find_cluster(environ=nothing, account=tmp_path) is None
    with pytest.raises(UsageError, match=r"no cluster: KUBECONFIG names no file .* '--kubeconfig'$"):
        open_connection(environ=nothing, account=tmp_path)
    with pytest.raises(
        UsageError, match=r"^no context 'x': there is no kubeconfig; name the file with '--kubeconfig'$"
    ):
        open_connection(None, "x", environ=nothing, account=tmp_path)


T = "abc"
FULL = {
    "current-context": "x",
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://api.test"}}],
    "users": [{"name": "u", "user": {}}],
}
"""A kubeconfig in which nothing is wrong."""


def user(**fields: object) -> dict[str, object]:
    """A kubeconfig whose user has these fields, and no other fault than theirs."""
    return {**FULL, "users": [{"name": "u", "user": {name.replace("_", "-"): each for name, each in fields.items()}}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\t{", "it is no YAML: while scanning"),
        (b"\xff\xfe\x00\xd8", "it is no YAML: "),
        ("[" * 5000, "it is no YAML: "),
        ("- a", "Expected `object`, got `array`, which is no kubeconfig"),
        ("clusters: 3", "Expected `array | null`, got `int` - at `$.clusters`, which is no kubeconfig"),
        ("contexts: [{context: {}}]", "Object missing required field `name` - at `$.contexts[0]`"),
        ("", "it has no contexts; give a kubeconfig"),
        ("users: null", "it has no contexts; give a kubeconfig"),
        ({**FULL, "current-context": ""}, "current-context is empty; name one of its contexts with '--context': x"),
        ({**FULL, "current-context": "y"}, "no context 'y', which current-context names; the contexts are: x"),
        ({**FULL, "clusters": None}, "context 'x': no cluster 'c' in "),
        ({**FULL, "clusters": [{"name": "c"}]}, "cluster 'c' has no server; give its address"),
        ({**FULL, "users": []}, "context 'x': no user 'u' in "),
        (
            {
                **FULL,
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {"server": "s", "insecure-skip-tls-verify": True, "certificate-authority": "f"},
                    }
                ],
            },
            "cluster 'c' has a certificate-authority and insecure-skip-tls-verify",
        ),
        (user(token=1), "Expected `str | null`, got `int` - at `$.users[0].user.token`"),
        (user(token=T, password=T), "user 'u' has a token and a password"),
        (user(client_certificate="f"), "user 'u' has a client-certificate and no client-key; add 'client-key'"),
        (user(as_groups=["g"]), "user 'u' has as-uid, as-groups or as-user-extra, and no as"),
        (user(exec={"command": "aws"}), "user 'u' has an exec without a command or an apiVersion"),
        (user(exec={}, auth_provider={}), "user 'u' has exec and auth-provider"),
        (user(auth_provider={"name": "gcp"}), "user 'u' has the auth-provider 'gcp', which gpucheck does not know"),
        (user(auth_provider={"name": "oidc", "config": {}}), "user 'u' has the auth-provider 'oidc'"),
        (user(client_certificate="absent", client_key="k"), "user 'u': client-certificate is "),
        (user(client_certificate_data="%%%", client_key_data="k"), "user 'u': client-certificate-data is no base64"),
        (user(client_certificate_data="bm8=", client_key_data="bm8="), "client-key are no pair that can be used"),
        (user(token=f"{T} {T}"), "user 'u': token is no token"),
        (user(**{"as": "a\nb"}), "what becomes the header Impersonate-User has control characters"),
        (
            {**FULL, "clusters": [{"name": "c", "cluster": {"server": "https://api.test:port"}}]},
            "cluster 'c': server is https://api.test:port, which is no address",
        ),
        (
            {**FULL, "clusters": [{"name": "c", "cluster": {"server": "https://a.test", "proxy-url": "ftp://p.test"}}]},
            "cluster 'c': the proxy ftp://p.test cannot be used",
        ),
        (
            {
                **FULL,
                "clusters": [
                    {"name": "c", "cluster": {"server": "https://a.test", "certificate-authority-data": "bm8="}}
                ],
            },
            "cluster 'c': certificate-authority holds no certificate",
        ),
    ],
)
def test_a_wrong_kubeconfig_is_named_with_its_field(tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "config"
    text = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
    path.write_bytes(text.encode() if isinstance(text, str) else text)

    with pytest.raises(UsageError) as raised:
        open_connection(path, environ={})
    message = str(raised.value)
    assert said in message
    assert message.startswith(str(path))
    assert ";" in message  # the way out
    assert len(message) < 700


def test_a_context_that_is_not_there_is_a_usage_error_that_lists_those_that_are(tmp_path: Path) -> None:
    path = listed(tmp_path / "config", **FULL)
    with pytest.raises(UsageError, match="no context 'prod', which --context names; the contexts are: x"):
        open_connection(path, "prod", environ={})


@pytest.mark.parametrize("field", ["kubeconfig", "certificate-authority"])
def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path: Path, field: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe
    if field != "kubeconfig":
        path = write(tmp_path / "config", user={}, cluster={"server": "https://api.test", field: str(pipe)})
    with pytest.raises(UsageError, match="pipe: it is no regular file; give"):
        open_connection(path, environ={})


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("https://bob:s3cret@api.test:6443/k8s", "https://api.test:6443/k8s"),
        ("https://bob:s3/cret@api.test", "https://api.test"),
        ("https://api.test/a@b", "https://api.test/a@b"),
        ("https://[::1]:6443/a@b", "https://[::1]:6443/a@b"),
        ("bob:s3cret@api.test", "http://api.test"),
    ],
)
def test_a_password_in_a_servers_address_is_shown_nowhere(tmp_path: Path, server: str, shown: str) -> None:
    access = find_cluster(write(tmp_path / "config", user={}, cluster={"server": server}), environ={})
    assert access is not None
    assert (access.server, access.cluster.server) == (shown, shown)
    assert "s3" not in str(access)


def test_the_login_in_a_servers_address_is_sent_where_nothing_else_says_who_asks(tmp_path: Path) -> None:
    cluster = {"server": "https://bob:s3%40cret@api.test"}
    access = find_cluster(write(tmp_path / "config", user={}, cluster=cluster), environ={})
    assert access is not None
    assert (access.user.username, access.user.password) == ("bob", "s3@cret")
    other = find_cluster(write(tmp_path / "config", user={"token": "abc"}, cluster=cluster), environ={})
    assert other is not None
    assert other.user.username is None


@pytest.mark.parametrize("where", ["server", "proxy-url"])
def test_an_address_that_is_none_is_quoted_without_its_password(tmp_path: Path, where: str) -> None:
    cluster = {"server": "https://api.test", where: "https://bob:s3cret@api.test:x"}
    with pytest.raises(UsageError, match=r"is https://api\.test:x, which is no address") as raised:
        open_connection(write(tmp_path / "config", user={}, cluster=cluster), environ={})
    assert "s3cret" not in str(raised.value)


def test_a_file_that_was_named_and_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file; give a kubeconfig"):
        open_connection(tmp_path / "absent", environ={})
    with pytest.raises(UsageError, match="Is a directory; give a kubeconfig"):
        open_connection(tmp_path, environ={})


def test_a_kubeconfig_of_two_thousand_contexts_is_read(tmp_path: Path) -> None:
    many = [{"name": f"x{n}", "context": {"cluster": "c", "user": "u"}} for n in range(2000)]
    access = find_cluster(listed(tmp_path / "config", **{**FULL, "contexts": many}), "x1999", environ={})
    assert access is not None
    assert access.context == "x1999"


# --- credentials that change -----------------------------------------------------------------------


def test_a_token_file_is_read_again_when_it_may_have_been_replaced(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first", encoding="utf-8")
    seconds = [0.0]
    source = TokenFile(path, Credentials(), "user 'u'", clock=lambda: seconds[0])
    tokens = [source.current().authorization]
    path.write_text("second\n", encoding="utf-8")
    tokens.append(source.current().authorization)
    seconds[0] = 60.0
    tokens.append(source.current().authorization)

    assert tokens == ["Bearer first", "Bearer first", "Bearer second"]


def test_a_token_file_is_read_again_when_its_token_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first", encoding="utf-8")
    connection = world.open(world.kubeconfig({"tokenFile": "token"}))
    world.server.answers = [(401, {}, b"")]
    body(connection)
    (tmp_path / "token").write_text("second", encoding="utf-8")
    body(connection)

    assert [seen.header("Authorization") for seen in world.server.seen] == [["Bearer first"], ["Bearer second"]]


def test_a_token_file_that_vanishes_leaves_the_last_token_in_use(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "token"
    path.write_text("first", encoding="utf-8")
    source = TokenFile(path, Credentials(), "user 'u'")
    first = source.current()
    source.refused(first)
    path.unlink()

    assert source.current() is first
    assert "cannot be read again" in caplog.text


@pytest.mark.parametrize(("content", "said"), [("", "is empty"), ("a\x00b", "is no token"), (None, "No such file")])
def test_a_token_file_without_a_token_is_named(world: World, tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content, encoding="utf-8")
    connection = world.open(world.kubeconfig({"tokenFile": "token"}))
    with pytest.raises(ConnectionFailedError, match=said) as raised:
        body(connection)
    assert raised.value.kind is FailureKind.CREDENTIALS


PLUGIN_OF_NO_PAIR = f"""
status = {{"clientKeyData": "k", "clientCertificateData": "c"}}
print(json.dumps({{"apiVersion": "{V1}", "kind": "", "status": status}}))
"""
COUNTING = """
count = pathlib.Path(__file__).with_name("count")
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
status = {{"token": f"token-{{number}}", "expirationTimestamp": "{expires}"}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


@pytest.mark.parametrize(
    ("expires", "tokens"),
    [
        ("2999-01-01T00:00:00Z", ["token-1", "token-1"]),
        ("2999-01-01T00:00:00+01:00", ["token-1", "token-1"]),
        ("2001-01-01T00:00:00Z", ["token-1", "token-2"]),
    ],
)
def test_a_plugin_runs_again_when_its_token_has_expired(world: World, expires: str, tokens: list[str]) -> None:
    connection = world.open(world.kubeconfig(world.plugin(COUNTING.format(expires=expires))))
    body(connection)
    body(connection)
    assert [seen.header("Authorization") for seen in world.server.seen] == [[f"Bearer {each}"] for each in tokens]


def test_a_plugin_runs_again_once_when_its_token_is_refused_to_many(world: World) -> None:
    connection = world.open(world.kubeconfig(world.plugin(COUNTING.format(expires="2999-01-01T00:00:00Z"))))
    body(connection)
    world.server.answers = [(401, {}, b"")] * 8
    with ThreadPoolExecutor(8) as pool:
        refused = [pool.submit(connection.request, "GET", "/api", timeout_s=10) for _ in range(8)]
        for each in refused:
            each.result().close()
    body(connection)
    used = {seen.header("Authorization")[0] for seen in world.server.seen}
    assert "Bearer token-2" in used
    assert world.server.seen[-1].header("Authorization")[0] in {"Bearer token-2", f"Bearer token-{len(used)}"}


def test_a_certificate_that_a_plugin_gives_anew_is_shown_on_a_new_connection(world: World) -> None:
    pairs = []
    for name in ("jane", "june"):
        issued = world.authority.issue_cert("u.test", common_name=name)
        pairs.append((issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()))
    script = f"pairs = {pairs!r}\n" + COUNTING.format(expires="2001-01-01T00:00:00Z").replace(
        'status = {"token": f"token-{number}", ',
        'status = {"clientCertificateData": pairs[number - 1][0], "clientKeyData": pairs[number - 1][1], ',
    )
    connection = world.open(world.kubeconfig(world.plugin(script)))
    body(connection)
    body(connection)
    assert [seen.client for seen in world.server.seen] == ["jane", "june"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit('no session; run: aws sso login')", "which ended with status 1: no session; run: aws sso login"),
        ("sys.exit(3)", "which ended with status 3; run 'kubectl get nodes'"),
        ("", "which printed no ExecCredential: Input data was truncated"),
        ("print('token: abc')", "which printed no ExecCredential"),
        ("sys.stdout.buffer.write(bytes(range(256)))", "which printed no ExecCredential"),
        ("print('[' * 100000)", "which printed no ExecCredential"),
        ("print('{}')", "which printed no ExecCredential: Object missing required field `apiVersion`"),
        (f"print(json.dumps(dict(apiVersion='{V1}', kind='')))", "whose answer has neither a token nor a certificate"),
        (
            "print(json.dumps(dict(apiVersion='v9', kind='')))",
            f"whose answer has apiVersion v9, and was asked for {V1}",
        ),
        (
            f"print(json.dumps(dict(apiVersion='{V1}', kind='', status=dict(clientKeyData='k'))))",
            "whose answer has a certificate or a key, and not both",
        ),
        (
            PLUGIN_OF_NO_PAIR,
            "are no pair that can be used",
        ),
        (f"print(json.dumps(dict(apiVersion='{V1}', kind='', status=dict(token='a b'))))", "its token is no token"),
        (
            f"print(json.dumps(dict(apiVersion='{V1}', kind='', status=dict(token='a', expirationTimestamp='soon'))))",
            "which printed no ExecCredential: Invalid RFC3339",
        ),
        ("sys.stderr.write('\x1b[31m' + 'x' * 10000); sys.exit(1)", "x" * 400),
    ],
)
def test_a_plugin_that_gives_no_credentials_is_named_with_its_words(world: World, script: str, said: str) -> None:
    connection = world.open(world.kubeconfig(world.plugin(script)))
    with pytest.raises(ConnectionFailedError) as raised:
        body(connection)
    message = str(raised.value)
    assert raised.value.kind is FailureKind.CREDENTIALS
    assert said in message
    assert f"{world.folder / 'config'}: user 'a'" in message
    assert ";" in message
    assert "\x1b" not in message
    assert len(message) < 1200
    assert world.server.seen == []


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (
            {"command": "absent-plugin", "installHint": "get it\nhere"},
            "'absent-plugin', which is not installed; install it, or correct 'command': get it here",
        ),
        ({"command": "/"}, "which cannot be run: "),
        ({"command": "true", "interactiveMode": "Always"}, "which asks at a terminal, and standard input is none"),
    ],
)
def test_a_plugin_that_cannot_be_run_is_named(world: World, plugin: dict[str, object], said: str) -> None:
    connection = world.open(world.kubeconfig({"exec": {"apiVersion": V1, **plugin}}))
    with pytest.raises(ConnectionFailedError) as raised:
        body(connection)
    assert raised.value.kind is FailureKind.CREDENTIALS
    assert said in str(raised.value)


def test_a_plugin_that_does_not_end_is_given_up(world: World) -> None:
    path = world.kubeconfig(
        world.plugin("sys.stderr.write('open https://login.test')\nsys.stderr.flush()\nos.read(os.pipe()[0], 1)")
    )
    access = find_cluster(path, environ={})
    assert access is not None
    assert access.user.exec is not None
    source = FromPlugin(access, access.user.exec, timeout_s=1)
    with pytest.raises(ConnectionFailedError, match=r"did not end within 1 s: open https://login\.test"):
        source.current()


def test_a_plugin_gets_no_more_than_what_is_left_of_the_deadline(world: World) -> None:
    access = find_cluster(world.kubeconfig(world.plugin("os.read(os.pipe()[0], 1)")), environ={})
    assert access is not None
    assert access.user.exec is not None
    source = FromPlugin(access, access.user.exec)
    deadline = Deadline(0.5)
    with pytest.raises(ConnectionFailedError, match=r"did not end within 0\.\d+ s; run"):
        source.current(deadline)
    with pytest.raises(ConnectionFailedError, match="for which no time is left"):
        source.current(deadline)


def test_credentials_are_not_sent_without_tls(tmp_path: Path) -> None:
    with served() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        body(open_connection(write(tmp_path / "config", user={"token": "abc", "as": "jane"}, cluster={"server": url})))
    assert (server.seen[0].header("Authorization"), server.seen[0].header("Impersonate-User")) == ([], ["jane"])


# --- trust -----------------------------------------------------------------------------------------


def kind_of(connection: Connection, **more: Any) -> tuple[FailureKind, str]:
    with pytest.raises(ConnectionFailedError) as raised:
        body(connection, **more)
    return raised.value.kind, str(raised.value)


def test_a_server_of_another_authority_is_not_trusted(world: World) -> None:
    stranger = {"certificate-authority-data": b64(trustme.CA().cert_pem.bytes())}
    kind, why = kind_of(world.open(world.kubeconfig(cluster=stranger)))
    assert kind is FailureKind.TLS
    cluster = f"{world.folder / 'config'}: cluster 'a'"
    assert why.startswith(f"GET /api: the server's certificate is not trusted, as {cluster} has it: ")
    assert world.server.seen == []


def test_an_authority_in_the_kubeconfig_is_the_only_one_that_is_trusted(world: World) -> None:
    settings: Any = world.open(world.kubeconfig())
    pool = settings._pool  # noqa: SLF001 -- what is trusted cannot be seen from outside
    context = pool.connection_pool_kw["ssl_context"]
    assert len(context.get_ca_certs()) == 1
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT  # Go takes authorities that OpenSSL then refuses
    assert pool.connection_pool_kw["ca_certs"] is None


def test_a_server_of_another_name_is_trusted_under_the_name_that_is_given(world: World) -> None:
    wrong = {"server": f"https://127.0.0.1:{world.server.server_port}"}
    assert kind_of(world.open(world.kubeconfig(cluster=wrong)))[0] is FailureKind.TLS
    kubeconfig = world.kubeconfig({"token": "abc"}, {**wrong, "tls-server-name": "api.cluster.test"})
    body(world.open(kubeconfig))
    kubectl("get", "--raw", "/api", kubeconfig=kubeconfig)
    assert world.server.names[-2:] == ["api.cluster.test", "api.cluster.test"]


def test_a_server_is_not_verified_where_the_kubeconfig_says_so(world: World, tmp_path: Path) -> None:
    wrong = {"server": f"https://127.0.0.1:{world.server.server_port}", "insecure-skip-tls-verify": True}
    assert body(open_connection(write(tmp_path / "config", user={}, cluster=wrong), environ={})) == b"{}"


def test_a_server_that_speaks_no_tls_is_named(tmp_path: Path) -> None:
    with served() as server:
        secure = {"server": f"https://127.0.0.1:{server.server_port}"}
        kind, why = kind_of(open_connection(write(tmp_path / "config", user={}, cluster=secure), environ={}))
    assert kind is FailureKind.TLS
    assert "speaks no TLS" in why


def test_no_private_key_stays_on_disk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = client_pair(world)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    user = {"client-certificate-data": b64(certificate), "client-key-data": b64(key)}
    body(world.open(world.kubeconfig(user)))
    assert world.server.seen[0].client == "jane"
    assert list(place.iterdir()) == []


# --- proxies ---------------------------------------------------------------------------------------


class Forwarder(http.server.BaseHTTPRequestHandler):
    """A proxy that takes every CONNECT to one server, whatever its name."""

    protocol_version = "HTTP/1.1"
    server: "Proxy"

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.server.refuses:
            self.send_error(403, "Forbidden by policy")
            return
        with socket.create_connection(("127.0.0.1", self.server.target), timeout=10) as target:
            self.send_response(200)
            self.end_headers()
            while True:
                ready, _, _ = select.select([target, self.connection], [], [], 10)
                if not ready:
                    return
                for each in ready:
                    data = each.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    (target if each is self.connection else self.connection).sendall(data)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Forwarder)
        self.target = target
        self.asked: list[tuple[str, str | None]] = []
        self.refuses = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    with Proxy(world.server.server_port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "environ"),
    [
        ("http://{}", {}),
        ("http://{}", {"NO_PROXY": "*"}),
        ("http://jane:s3%20cret@{}", {}),
        (None, {"HTTPS_PROXY": "http://{}"}),
        (None, {"https_proxy": "http://jane:secret@{}", "NO_PROXY": "other.test,10.0.0.0/8"}),
        (None, {"HTTPS_PROXY": "{}"}),
    ],
)
def test_a_server_is_reached_through_the_proxy_that_kubectl_takes(
    world: World, proxy: Proxy, url: str | None, environ: dict[str, str]
) -> None:
    said = {name: value.format(proxy.address) for name, value in environ.items()}
    cluster: dict[str, object] = {"server": "https://api.cluster.test:6443"}
    kubeconfig = world.kubeconfig({"token": "abc"}, cluster | ({"proxy-url": url.format(proxy.address)} if url else {}))
    world.environ = said
    body(world.open(kubeconfig))
    kubectl("get", "--raw", "/api", kubeconfig=kubeconfig, environ=said)

    ours, kubectls = proxy.asked
    assert ours == kubectls
    assert ours[0] == "api.cluster.test:6443"
    assert [seen.path for seen in world.server.seen] == ["/api", "/api"]


def test_a_proxy_that_refuses_is_named_without_its_password(world: World, proxy: Proxy) -> None:
    proxy.refuses = True
    cluster: dict[str, object] = {"server": "https://api.cluster.test", "proxy-url": f"http://j:secret@{proxy.address}"}
    kind, why = kind_of(world.open(world.kubeconfig(cluster=cluster)))
    assert kind is FailureKind.UNREACHABLE
    assert (
        f"GET /api through the proxy http://{proxy.address}: Tunnel connection failed: 403 Forbidden by policy" in why
    )
    assert "secret" not in why


@pytest.mark.parametrize(
    ("server", "environ", "expected"),
    [
        ("https://api.test", {"HTTPS_PROXY": "http://p.test"}, "http://p.test"),
        ("https://api.test", {"HTTP_PROXY": "http://p.test", "ALL_PROXY": "http://p.test"}, None),
        ("http://api.test", {"HTTP_PROXY": "p.test:3128"}, "http://p.test:3128"),
        ("https://localhost:6443", {"HTTPS_PROXY": "http://p.test"}, None),
        ("https://127.0.0.9", {"HTTPS_PROXY": "http://p.test"}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": "http://p.test"}, None),
    ],
)
def test_the_environment_names_a_proxy_for_a_scheme(server: str, environ: dict[str, str], expected: str | None) -> None:
    assert proxy_for(server, None, environ) == expected


@pytest.mark.parametrize(
    ("server", "excepted", "direct"),
    [
        ("https://api.test", "*", True),
        ("https://api.test", "", False),
        ("https://api.test", "other.test, api.test", True),
        ("https://API.test.", "api.test", True),
        ("https://a.api.test", "api.test", True),
        ("https://a.api.test", ".api.test", True),
        ("https://api.test", ".api.test", False),
        ("https://a.api.test", "*.api.test", True),
        ("https://api.test", "*.api.test", False),
        ("https://notapi.test", "api.test", False),
        ("https://api.test:6443", "api.test:6443", True),
        ("https://api.test:6443", "api.test:443", False),
        ("https://api.test", "api.test:443", True),
        ("https://api.test", "api.test:port", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://api.test", "10.0.0.0/8", False),
        ("https://10.1.2.3", "nonsense/8", False),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", True),
        ("https://10.1.2.3", "10.1.2.30", False),
        ("https://[fd00::1]:6443", "fd00::1", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://10.1.2.3", "0.1.2.3", False),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(server: str, excepted: str, *, direct: bool) -> None:
    proxy = proxy_for(server, None, {"HTTPS_PROXY": "http://p.test", "NO_PROXY": excepted})
    assert (proxy is None) is direct


# --- transport -------------------------------------------------------------------------------------


def test_an_answer_has_its_status_headers_and_whole_body(world: World) -> None:
    world.server.answers = [(404, {"Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Retry-After": "3"}, b"not here")]
    answer = world.open(world.kubeconfig()).request("GET", "/api", timeout_s=10)
    assert (answer.status, answer.headers["retry-after"], b"".join(answer.chunks())) == (404, "3", b"not here")
    answer.close()


def test_a_folded_body_is_unfolded(world: World) -> None:
    folded = gzip.compress(b"x" * 1_000_000)
    world.server.answers = [(200, {"Content-Encoding": "gzip"}, folded)]
    assert body(world.open(world.kubeconfig()), headers={"Accept-Encoding": "gzip"}) == b"x" * 1_000_000
    assert world.server.seen[0].header("Accept-Encoding") == ["gzip"]


def test_a_body_that_is_sent_arrives(world: World) -> None:
    answer = world.open(world.kubeconfig()).request(
        "POST", "/api", body=b'{"a": 1}', headers={"Content-Type": "application/json"}, timeout_s=10
    )
    assert b"".join(answer.chunks()) == b'{"a": 1}'
    assert world.server.seen[0].header("Content-Type") == ["application/json"]


def test_a_redirect_is_an_answer_and_is_not_followed(world: World) -> None:
    world.server.answers = [(307, {"Location": "https://other.test/"}, b"")]
    assert world.open(world.kubeconfig({"token": "abc"})).request("GET", "/api", timeout_s=10).status == 307
    assert len(world.server.seen) == 1


def test_an_overloaded_server_is_asked_once(world: World) -> None:
    world.server.answers = [(429, {"Retry-After": "1"}, b""), (200, {}, b"")]
    assert world.open(world.kubeconfig()).request("GET", "/api", timeout_s=10).status == 429
    assert len(world.server.seen) == 1


def test_one_connection_carries_one_request_after_another(world: World) -> None:
    connection = world.open(world.kubeconfig())
    for _ in range(3):
        body(connection)
    assert len({seen.connection for seen in world.server.seen}) == 1


def test_a_connection_whose_body_was_not_read_is_thrown_away(world: World) -> None:
    connection = world.open(world.kubeconfig())
    world.server.answers = [(200, {}, b"x" * 5_000_000)]
    connection.request("GET", "/api", timeout_s=10).close()
    assert body(connection) == b"{}"
    assert len({seen.connection for seen in world.server.seen}) == 2


def test_sixteen_threads_share_a_connection(world: World) -> None:
    connection = world.open(world.kubeconfig({"token": "abc"}))
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda n: body(connection, f"/{n}"), range(64)))
    assert bodies == [b"{}"] * 64
    assert {seen.path for seen in world.server.seen} == {f"/{n}" for n in range(64)}


def test_a_body_that_breaks_off_is_no_whole_one(world: World) -> None:
    world.server.answers = [(200, {"Content-Length": "100"}, b"x" * 50)]
    kind, why = kind_of(world.open(world.kubeconfig()))
    assert kind is FailureKind.RESET
    assert "GET /api: its body broke off" in why


def test_a_body_that_is_no_gzip_is_no_whole_one(world: World) -> None:
    world.server.answers = [(200, {"Content-Encoding": "gzip"}, b"plain")]
    assert kind_of(world.open(world.kubeconfig())) == (FailureKind.RESET, "GET /api: its body is no gzip")


class Script(threading.Thread):
    """A listener that answers one connection with given bytes, and then does as it is told."""

    def __init__(self, sent: bytes, *, then: str) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sent = sent
        self._then = then
        self.release = threading.Event()

    def run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(self._sent)
            if self._then == "stall":
                self.release.wait(20)
            elif self._then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"


@pytest.mark.parametrize(
    ("sent", "then", "kind"),
    [
        (b"", "close", FailureKind.RESET),
        (b"", "reset", FailureKind.RESET),
        (b"", "stall", FailureKind.TIMEOUT),
        (b"nonsense\r\n\r\n", "close", FailureKind.RESET),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, "close", FailureKind.RESET),
        (CHUNKED, "close", FailureKind.RESET),
        (CHUNKED, "reset", FailureKind.RESET),
        (CHUNKED, "stall", FailureKind.TIMEOUT),
        (CHUNKED + b"zz\r\n", "close", FailureKind.RESET),
    ],
)
def test_a_connection_that_fails_says_how(tmp_path: Path, sent: bytes, then: str, kind: FailureKind) -> None:
    script = Script(sent, then=then)
    script.start()
    path = write(tmp_path / "config", user={}, cluster={"server": f"http://127.0.0.1:{script.port}"})
    try:
        seen, why = kind_of(open_connection(path, environ={}), timeout_s=0.5)
    finally:
        script.release.set()
        script.join()
    assert seen is kind
    assert "GET /api" in why


def test_a_server_that_nobody_listens_at_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = write(tmp_path / "config", user={}, cluster={"server": f"https://127.0.0.1:{port}"})
    kind, why = kind_of(open_connection(path, environ={}))
    assert kind is FailureKind.UNREACHABLE
    assert why == "GET /api: Connection refused"


@pytest.mark.parametrize("host", ["gpucheck.invalid", "a" * 64 + ".invalid", "a..invalid"])
def test_a_name_that_does_not_resolve_is_unreachable(tmp_path: Path, host: str) -> None:
    path = write(tmp_path / "config", user={}, cluster={"server": f"https://{host}:6443"})
    kind, why = kind_of(open_connection(path, environ={}))
    assert kind is FailureKind.UNREACHABLE
    assert why.startswith("GET /api: ")


def test_looking_for_a_cluster_loads_neither_the_package_nor_urllib3() -> None:
    script = (
        "import sys\n"
        "from kube_gpucheck.collect.connection import find_cluster\n"
        "find_cluster(environ={'KUBECONFIG': '/absent'})\n"
        "print([name for name in sys.modules if name in {'kubernetes', 'urllib3'}])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
