"""The real kubectl, and the real Python client, against the embedded cluster."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import kubernetes
import pytest

from kube_gpucheck import assets
from kube_gpucheck.evidence.bundle import open_bundle
from kube_gpucheck.simulate.faults import parse_fault
from kube_gpucheck.simulate.script import Outcome, PodRule, Script
from kube_gpucheck.simulate.server import EmbeddedCluster
from suite import FIXTURES

RECORDED = FIXTURES / "bundles/recorded"
DESCRIBED = sorted(path.parents[1].name for path in RECORDED.glob("*/extra/describe.txt"))
FOUND = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
pytestmark = pytest.mark.skipif(FOUND is None, reason="no kubectl: install the extra 'test'")
SCRIPT = Script(
    (
        PodRule(Outcome.SUCCEEDS, pod="good*", log="Test PASSED\n"),
        PodRule(Outcome.FAILS, pod="bad*", exit=3, log="CUDA error\n"),
    )
)
MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: work}
---
apiVersion: v1
kind: Pod
metadata: {name: good, namespace: work, labels: {app: one}}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "example.com/work:1", resources: {limits: {nvidia.com/gpu: 1}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each, namespace: work}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec: {containers: [{name: main, image: "example.com/work:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: job, namespace: work}
spec:
  completions: 2
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: "example.com/work:1"}]}}
"""
CLIENT: Any = kubernetes
"""It takes objects as mappings, and its types do not say so."""


class Command:
    """kubectl with a home and a kubeconfig of its own."""

    def __init__(self, cluster: EmbeddedCluster, home: Path) -> None:
        config = home / "config"
        config.write_text(cluster.kubeconfig())
        self.environment = {"PATH": os.defpath, "HOME": str(home), "KUBECONFIG": str(config), "TZ": "UTC"}
        self.config = config

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(FOUND), "--cache-dir", str(self.config.parent / "cache"), *arguments]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, env=self.environment, check=False
        )

    def __call__(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode != 0, f"{arguments}: {done.stdout}"
        return done.stderr


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A cluster that tests only read."""
    with EmbeddedCluster(open_bundle(RECORDED / "healthy"), name="healthy") as cluster:
        yield Command(cluster, tmp_path_factory.mktemp("home"))


@pytest.fixture
def kubectl(tmp_path: Path) -> Iterator[Command]:
    """A cluster for one test alone."""
    with EmbeddedCluster(open_bundle(RECORDED / "healthy"), name="healthy", script=SCRIPT) as cluster:
        yield Command(cluster, tmp_path)


def rows(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


# --- reading -----------------------------------------------------------------------------------


def test_nodes_and_pods_of_all_namespaces_are_shown(healthy: Command) -> None:
    shown = rows(healthy("get", "nodes,pods", "-A"))

    assert shown[0] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert shown[1][:3] == ["node/gpu-node-0", "Ready", "<none>"]
    assert ["default", "pod/cuda-vectoradd", "0/1", "Completed", "0"] in [row[:5] for row in shown]


def test_wide_output_has_the_columns_and_cells_that_the_recorded_server_sent(healthy: Command) -> None:
    """Ages differ by the seconds in which the recording was made; the probe's pod was not there."""
    ages = re.compile(r"\d+[smhd](?:\d+[smh])?")

    def shown(text: str) -> list[str]:
        lines = (ages.sub("AGE", " ".join(line.split())) for line in text.splitlines())
        return [line for line in lines if line and "gpucheck-probe" not in line]

    made = shown(healthy("get", "nodes,pods,daemonsets,runtimeclasses", "-A", "-o", "wide"))
    recorded = shown((RECORDED / "healthy/extra/get.txt").read_text())
    without_events = recorded[: next(place for place, line in enumerate(recorded) if "LAST SEEN" in line)]

    assert made == without_events


def test_events_are_shown_as_they_were(healthy: Command) -> None:
    made = {tuple(row[2:]) for row in rows(healthy("get", "events", "-A"))}
    text = (RECORDED / "healthy/extra/get.txt").read_text()
    recorded = {tuple(row[2:]) for row in rows(text[text.index("LAST SEEN") - 40 :]) if len(row) > 4}

    assert recorded <= made


def test_objects_come_as_json(healthy: Command) -> None:
    items = json.loads(healthy("get", "pods", "-A", "-o", "json"))["items"]
    recorded = json.loads((RECORDED / "healthy/cluster/pods.json").read_bytes())["items"]

    assert [one for one in items if one["metadata"]["namespace"] != "gpucheck"] == recorded


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("-l", "app.kubernetes.io/instance=nvidia-device-plugin"), 2),
        (("-l", "app.kubernetes.io/name in (nvidia-device-plugin),!nothing"), 2),
        (("-l", "app.kubernetes.io/name!=nvidia-device-plugin"), 3),
        (("--field-selector", "status.phase=Succeeded,spec.nodeName=gpu-node-0"), 2),
        (("--field-selector", "metadata.namespace!=default"), 3),
    ],
)
def test_selectors_select(healthy: Command, arguments: tuple[str, ...], names: int) -> None:
    assert len(healthy("get", "pods", "-A", "-o", "name", *arguments).split()) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "pods", "-l", "a in (b"), "unable to parse requirement: found '', expected: ',' or ')'"),
        (("get", "pods", "--field-selector", "spec.foo=1"), "field label not supported: spec.foo"),
        (("get", "pod", "ghost"), 'Error from server (NotFound): pods "ghost" not found'),
        (("get", "ghosts"), 'error: the server doesn\'t have a resource type "ghosts"'),
        (("get", "secrets"), "Error from server (Forbidden)"),
        (("logs", "ghost"), 'pods "ghost" not found'),
        (("logs", "cuda-vectoradd", "-c", "ghost"), "container ghost is not valid for pod cuda-vectoradd"),
        (("get", "--raw", "/nowhere"), "the server could not find the requested resource"),
    ],
)
def test_refusals_read_as_those_of_a_real_server(healthy: Command, arguments: tuple[str, ...], message: str) -> None:
    assert message in healthy.refused(*arguments)


AGE = r"(?:<invalid>|<unknown>|\d+[smhdy](?:\d+[smhd])?)"
AGES = re.compile(rf"(?<!\S){AGE}(?!\S)|(?<=over ){AGE}|(?<=, ){AGE}")
HEARTBEAT = re.compile(r" \w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000(?= \w{3}, \d\d \w{3})")
MOVED_ON = frozenset({"cdi-spec-missing", "cdi-spec-stale-devnode"})
"""Recordings whose failing pod changed its phase between `kubectl describe` and the reading of the evidence."""


def descriptions(text: str) -> dict[tuple[str, str], list[str]]:
    """Return what `kubectl describe` says of each object, by kind and name.

    Without blanks, ages (they are the client's), and what was another when the evidence was read: heartbeats.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for block in text.split("\n\n\n"):
        name = re.match(r"\s*Name:\s+(\S+)", block)
        if name is None or name[1].startswith("gpucheck-probe"):
            continue
        kind = "node" if "\nSystem Info:" in block else "daemonset" if "\nDesired Number" in block else "pod"
        lines = (HEARTBEAT.sub("", " ".join(AGES.sub("AGE", line).split())) for line in block.splitlines())
        found[kind, name[1]] = [
            line
            for line in lines
            if line and not re.search("RenewTime:|Non-terminated Pods:|gpucheck-probe|^[- ]+$", line)
        ]
    return found


@pytest.mark.parametrize("bundle", DESCRIBED)
def test_descriptions_are_those_of_the_recorded_cluster(bundle: str, tmp_path: Path) -> None:
    recorded = descriptions((RECORDED / bundle / "extra/describe.txt").read_text())
    with EmbeddedCluster(open_bundle(RECORDED / bundle), name=bundle) as cluster:
        made = descriptions(Command(cluster, tmp_path)("describe", "nodes,pods,daemonsets", "-A", "--show-events"))
    compared = [one for one in recorded if bundle not in MOVED_ON or one[0] == "daemonset"]

    assert compared
    for one in compared:
        shown = made[one]
        if not any(line.startswith("Events:") for line in recorded[one]):  # kubectl leaves them out of several objects
            shown = shown[: next(place for place, line in enumerate(shown) if line.startswith("Events:"))]
        assert shown == recorded[one]


def test_logs_come_whole_and_by_lines(healthy: Command) -> None:
    whole = healthy("logs", "cuda-vectoradd")

    assert whole == (RECORDED / "healthy/cluster/logs/default_cuda-vectoradd_cuda-vectoradd.log").read_text()
    assert healthy("logs", "cuda-vectoradd", "--tail=1") == whole.splitlines(keepends=True)[-1]


def test_the_log_of_a_previous_run_comes_too(tmp_path: Path) -> None:
    place = next(path for path in sorted(RECORDED.glob("*/cluster/logs/*.previous.log")) if path.stat().st_size)
    namespace, pod, container = place.name.removesuffix(".previous.log").split("_")
    with EmbeddedCluster(open_bundle(place.parents[2]), name="t") as cluster:
        shown = Command(cluster, tmp_path)("logs", pod, "-n", namespace, "-c", container, "--previous")

    assert shown == place.read_text()


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("list", "nodes"), "yes"),
        (("get", "pods", "--subresource=log"), "yes"),
        (("create", "daemonsets.apps", "-n", "default"), "yes"),
        (("get", "/healthz"), "yes"),
        (("list", "secrets"), "no"),
        (("get", "/metrics"), "no"),
    ],
)
def test_it_can_be_asked_what_may_be_done(healthy: Command, arguments: tuple[str, ...], answer: str) -> None:
    assert healthy.run("auth", "can-i", *arguments).stdout.strip() == answer


def test_all_that_may_be_done_is_listed(healthy: Command) -> None:
    shown = {row[0]: row[-1] for row in rows(healthy("auth", "can-i", "--list"))}

    assert "list" in shown["nodes"]
    assert "secrets" not in shown


def test_a_kind_that_was_forbidden_may_not_be_listed(tmp_path: Path) -> None:
    bundle = open_bundle(RECORDED / "healthy")
    with EmbeddedCluster(bundle, name="t", faults=[parse_fault("403:pods@default")]) as cluster:
        kubectl = Command(cluster, tmp_path)

        assert "forbidden" in kubectl.refused("get", "pods", "-n", "default")
        assert kubectl.run("auth", "can-i", "list", "pods", "-n", "default").stdout.strip() == "no"
        assert kubectl.run("auth", "can-i", "list", "pods", "-n", "kube-system").stdout.strip() == "yes"


def test_versions_and_kinds_are_told(healthy: Command) -> None:
    served = {tuple(row) for row in rows(healthy("api-resources", "-o", "name"))}

    assert "Server Version: v1.36.2" in healthy("version")
    assert {"v1", "apps/v1", "node.k8s.io/v1"} <= set(healthy("api-versions").split())
    assert {("pods",), ("daemonsets.apps",), ("runtimeclasses.node.k8s.io",)} <= served
    assert json.loads(healthy("get", "--raw", "/version"))["gitVersion"] == "v1.36.2"
    assert healthy("get", "--raw", "/readyz") == "ok"


# --- writing -----------------------------------------------------------------------------------


def test_what_is_applied_runs_to_its_end_and_can_be_waited_for(kubectl: Command) -> None:
    applied = kubectl("apply", "-f", "-", text=MANIFESTS)
    rolled_out = kubectl("rollout", "status", "ds/each", "-n", "work", "--timeout=20s")
    ready = kubectl("wait", "-n", "work", "--for=condition=Ready", "pod", "-l", "app=each", "--timeout=20s")
    complete = kubectl("wait", "-n", "work", "--for=condition=Complete", "job/job", "--timeout=20s")
    ended = kubectl("wait", "-n", "work", "--for=jsonpath={.status.phase}=Succeeded", "pod/good", "--timeout=20s")

    assert applied.splitlines() == [
        "namespace/work created",
        "pod/good created",
        "daemonset.apps/each created",
        "job.batch/job created",
    ]
    assert rolled_out.endswith('daemon set "each" successfully rolled out\n')
    assert ready.endswith("condition met\n")
    assert complete == "job.batch/job condition met\n"
    assert ended == "pod/good condition met\n"
    assert kubectl("logs", "good", "-n", "work") == "Test PASSED\n"
    assert rows(kubectl("get", "jobs", "-n", "work"))[1][:3] == ["job", "Complete", "2/2"]
    assert rows(kubectl("get", "ds", "-n", "work"))[1][:6] == ["each", "1", "1", "1", "1", "1"]
    assert "SuccessfulCreate" in kubectl("describe", "ds", "each", "-n", "work")


CREATED = (
    ("job", "j", "--image=busybox:1", "--", "sh", "-c", "true"),
    ("deployment", "d", "--image=busybox:1", "--image=nginx", "--replicas=3"),
    ("role", "r", "--verb=get,list", "--resource=pods,daemonsets.apps", "--resource-name=a"),
    ("clusterrole", "c", "--verb=get", "--non-resource-url=/metrics"),
    ("rolebinding", "b", "--clusterrole=view", "--serviceaccount=work:default", "--user=jane"),
    ("clusterrolebinding", "b", "--clusterrole=view", "--group=ops"),
)


@pytest.mark.parametrize("created", CREATED, ids=[one[0] for one in CREATED])
def test_what_kubectl_creates_without_a_file_is_what_it_would_have_written_to_one(
    kubectl: Command, created: tuple[str, ...]
) -> None:
    kubectl("create", "namespace", "work")
    kind, name, *options = created
    place = [] if kind.startswith("cluster") else ["-n", "work"]
    meant = json.loads(kubectl("create", kind, name, *place, "--dry-run=client", "-o", "json", *options))
    kubectl("create", kind, name, *place, *options)

    found = json.loads(kubectl("get", kind, name, *place, "-o", "json"))
    for part in {*meant} - {"metadata", "status", "spec"}:
        assert found[part] == meant[part]
    for path in ("replicas", "selector.matchLabels"):
        if kind == "deployment":
            assert _at(found["spec"], path) == _at(meant["spec"], path)
    if "spec" in meant:
        containers = "template.spec.containers"
        kept = [
            {key: value for key, value in one.items() if key in {"name", "image", "command", "args"}}
            for one in _at(found["spec"], containers)
        ]
        assert kept == [
            {key: value for key, value in one.items() if key != "resources"} for one in _at(meant["spec"], containers)
        ]
        assert _at(found["spec"], "template.spec").get("restartPolicy") in {"Never", "Always", None}


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document[key]
    return document


def test_what_kubectl_creates_of_another_kind_is_refused_with_the_way_out(kubectl: Command) -> None:
    kubectl("create", "namespace", "work")
    refused = kubectl.refused("create", "quota", "q", "-n", "work", "--hard=pods=1")
    assert "write the object to a file ('--dry-run=client -o yaml'), and create that" in refused


def test_the_rights_of_docs_access_can_be_applied_where_nobody_asked_for_their_kinds(kubectl: Command) -> None:
    assert "forbidden" in kubectl.refused("get", "clusterroles")

    applied = kubectl("apply", "-f", str(assets.folder("workloads") / "rbac/troubleshoot.yaml"))
    assert {line.rpartition(" ")[2] for line in applied.splitlines()} == {"created"}
    again = kubectl("apply", "-f", str(assets.folder("workloads") / "rbac/troubleshoot.yaml"))
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}


def test_what_is_applied_twice_is_unchanged_and_what_is_created_twice_is_refused(kubectl: Command) -> None:
    kubectl("apply", "-f", "-", text=MANIFESTS)

    assert "namespace/work unchanged" in kubectl("apply", "-f", "-", text=MANIFESTS)
    assert 'pods "good" already exists' in kubectl.refused("create", "-f", "-", text=MANIFESTS)


def test_objects_are_patched_labelled_and_applied_on_the_server_s_side(kubectl: Command) -> None:
    kubectl("create", "namespace", "work")
    kubectl("create", "configmap", "c", "-n", "work", "--from-literal=a=1")
    kubectl("patch", "configmap", "c", "-n", "work", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "configmap", "c", "-n", "work", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("label", "configmap", "c", "-n", "work", "x=y")
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"d": "4"}}
    kubectl("apply", "--server-side", "-n", "work", "-f", "-", text=json.dumps(manifest))
    document = json.loads(kubectl("get", "configmap", "c", "-n", "work", "-o", "json"))

    assert document["data"] == {"b": "2", "d": "4"}
    assert document["metadata"]["labels"] == {"x": "y"}


def test_a_pod_that_fails_says_how(kubectl: Command) -> None:
    manifest = MANIFESTS.replace("name: good", "name: bad")
    kubectl("apply", "-f", "-", text=manifest)
    kubectl("wait", "-n", "work", "--for=jsonpath={.status.phase}=Failed", "pod/bad", "--timeout=20s")
    described = kubectl("describe", "pod", "bad", "-n", "work")

    assert rows(kubectl("get", "pod", "bad", "-n", "work"))[1][2] == "Error"
    assert re.search(r"Exit Code:\s+3\n", described)
    assert kubectl("logs", "bad", "-n", "work") == "CUDA error\n"


def test_deletion_takes_what_is_owned_and_what_is_inside(kubectl: Command) -> None:
    kubectl("apply", "-f", "-", text=MANIFESTS)
    kubectl("rollout", "status", "ds/each", "-n", "work", "--timeout=20s")
    kubectl("delete", "ds", "each", "-n", "work", "--timeout=20s")
    kubectl("wait", "--for=delete", "pod", "-l", "app=each", "-n", "work", "--timeout=20s")
    kubectl("delete", "job", "job", "-n", "work", "--cascade=foreground", "--timeout=20s")
    left = kubectl("get", "pods", "-n", "work", "-o", "name")
    kubectl("delete", "namespace", "work", "--timeout=20s")

    assert left == "pod/good\n"
    assert 'namespaces "work" not found' in kubectl.refused("get", "namespace", "work")
    assert 'namespaces "work" not found' in kubectl.refused("create", "configmap", "c", "-n", "work")


def test_a_watch_shows_what_changes(kubectl: Command) -> None:
    kubectl("create", "namespace", "work")
    command = [str(FOUND), "get", "pods", "-n", "work", "-w", "--request-timeout=20s"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=kubectl.environment
    ) as watching:
        assert watching.stdout is not None
        try:
            kubectl("apply", "-f", "-", text=MANIFESTS)
            shown = [next(row for row in rows_of(watching.stdout) if row[:3] == ["good", "0/1", "Completed"])]
        finally:
            watching.kill()

    assert shown[0][3] == "0"


def rows_of(stream: IO[str]) -> Iterator[list[str]]:
    return (re.split(r" {2,}", line.strip()) for line in stream)


# --- the Python client -------------------------------------------------------------------------


@pytest.fixture
def client(kubectl: Command) -> Iterator[Any]:
    configuration = CLIENT.client.Configuration()
    CLIENT.config.load_kube_config(str(kubectl.config), client_configuration=configuration)
    with CLIENT.client.ApiClient(configuration) as api:
        yield api


def test_the_client_lists_page_by_page(client: Any) -> None:
    core = CLIENT.client.CoreV1Api(client)
    first = core.list_pod_for_all_namespaces(limit=2)
    second = core.list_pod_for_all_namespaces(limit=2, _continue=first.metadata._continue)  # noqa: SLF001  so the client names it

    assert len({one.metadata.name for one in (*first.items, *second.items)}) == 4
    assert first.metadata.remaining_item_count == 3


def test_the_client_creates_watches_and_deletes(client: Any) -> None:
    core = CLIENT.client.CoreV1Api(client)
    core.create_namespace({"metadata": {"name": "work"}})
    pod = {
        "metadata": {"generateName": "good-"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "example.com/work:1"}]},
    }
    created = core.create_namespaced_pod("work", pod)
    name, uid = created.metadata.name, created.metadata.uid
    with contextlib.closing(
        CLIENT.watch.Watch().stream(core.list_namespaced_pod, "work", timeout_seconds=20)
    ) as events:
        seen = (event["object"].status.phase for event in events)
        phases = list(dict.fromkeys(until(lambda one: one == "Succeeded", seen)))
    with pytest.raises(CLIENT.client.ApiException) as refused:
        core.delete_namespaced_pod(name, "work", body={"preconditions": {"uid": "another"}})
    core.delete_namespaced_pod(name, "work", body={"preconditions": {"uid": uid}})

    assert name.startswith("good-")
    assert phases[-1] == "Succeeded"
    assert phases == [one for one in ("Pending", "Running", "Succeeded") if one in phases]
    assert (refused.value.status, json.loads(refused.value.body)["reason"]) == (409, "Conflict")
    assert core.list_namespaced_pod("work").items == []


def until(is_last: Callable[[str], bool], values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield value
        if is_last(value):
            return


def test_the_client_gets_a_daemonset_rolled_out(client: Any) -> None:
    CLIENT.client.CoreV1Api(client).create_namespace({"metadata": {"name": "work"}})
    apps = CLIENT.client.AppsV1Api(client)
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    body = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    apps.create_namespaced_daemon_set("work", body)
    watching = CLIENT.watch.Watch().stream(apps.list_namespaced_daemon_set, "work", timeout_seconds=20)
    with contextlib.closing(watching) as events:
        ready = next(one for event in events if (one := event["object"]).status.number_ready)

    assert (ready.status.desired_number_scheduled, ready.status.number_ready) == (1, 1)
