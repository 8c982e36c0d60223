"""What becomes of objects that are created or deleted: step by step, as scheduler, kubelets and controllers do it."""

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bundle_builders import listed, node, pod
from kube_gpucheck.errors import UsageError
from kube_gpucheck.simulate.answers import RefusedError
from kube_gpucheck.simulate.deletion import Deletions
from kube_gpucheck.simulate.objects import Objects, decoded
from kube_gpucheck.simulate.progress import Progress
from kube_gpucheck.simulate.resources import resource_of
from kube_gpucheck.simulate.script import Outcome, PodRule, Script, open_script, read_script
from kube_gpucheck.simulate.server import EmbeddedCluster
from serving import ask, bundle_of

PODS = resource_of("pods")
DAEMONSETS = resource_of("daemonsets.apps")
JOBS = resource_of("jobs.batch")
NAMESPACES = resource_of("namespaces")
NOW = "2026-01-01T00:00:00Z"


class World:
    """Some nodes, and what an API server does with objects over them."""

    def __init__(self, *nodes: dict[str, Any], script: Script | None = None) -> None:
        self.objects = Objects(NOW)
        contents = {"nodes": nodes, "runtimeclasses.node.k8s.io": [{"metadata": {"name": "nvidia"}}]}
        for kind, documents in contents.items():
            self.objects.load(kind, [json.dumps(one).encode() for one in documents])
        self.deletions = Deletions(self.objects)
        self.progress = Progress(self.objects, self.deletions, script=script)

    def create(self, resource: Any, document: dict[str, Any], namespace: str | None = "w") -> dict[str, Any]:
        self.progress.admit(resource, document)
        return self.progress.created(resource, self.objects.create(resource, namespace, document))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.progress.step()

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [decoded(one.raw) for one in self.objects.list_of(kind)]

    def one(self, kind: str, name: str, namespace: str | None = "w") -> dict[str, Any]:
        return self.objects.get(resource_of(kind), namespace, name)

    def phases(self) -> list[str]:
        return [one["status"]["phase"] for one in self.all("pods")]

    def reasons(self) -> list[str]:
        return [one["reason"] for one in self.all("events")]


def gpu_node(name: str = "gpu-0", gpus: int = 1, **spec: Any) -> dict[str, Any]:
    document = node(name, allocatable={"nvidia.com/gpu": str(gpus)})
    document["metadata"]["labels"]["kubernetes.io/hostname"] = name
    return {**document, "spec": spec}


def a_pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}], **spec},
    }


def wants(count: int) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": str(count)}}}]


def a_daemonset(name: str = "d", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}


def a_job(name: str = "j", **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


def nodes_of(world: World) -> list[str]:
    return sorted(one["spec"].get("nodeName", "") for one in world.all("pods"))


# --- pods --------------------------------------------------------------------------------------


def test_a_pod_goes_from_pending_over_running_to_its_end() -> None:
    world = World(gpu_node(), script=Script((PodRule(Outcome.SUCCEEDS, log="Test PASSED\n"),)))
    world.create(PODS, a_pod())
    phases = [world.phases()]
    for _ in range(5):
        world.step()
        phases.append(world.phases())
    (status,) = world.one("pods", "p")["status"]["containerStatuses"]

    assert [one for (one,) in phases] == ["Pending", "Pending", "Running", "Succeeded", "Succeeded", "Succeeded"]
    assert status["state"]["terminated"]["exitCode"] == 0
    assert status["state"]["terminated"]["reason"] == "Completed"
    assert status["imageID"].startswith("sha256:")
    assert world.progress.pods.log("w", "p", "c") == b"Test PASSED\n"
    assert world.reasons() == ["Scheduled", "Started"]


def test_a_script_says_how_a_pod_ends() -> None:
    rules = (PodRule(Outcome.FAILS, pod="bad-*", exit=7, log="boom", steps=3), PodRule(Outcome.RUNS, pod="stay"))
    world = World(gpu_node(), script=Script(rules))
    for name in ("bad-1", "stay", "fine"):
        world.create(PODS, a_pod(name))
    world.step(3)
    early = world.phases()
    world.step(2)

    assert early == ["Running", "Running", "Succeeded"]
    assert world.phases() == ["Failed", "Running", "Succeeded"]
    (status,) = world.one("pods", "bad-1")["status"]["containerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["state"]["terminated"]["reason"]) == (7, "Error")


def test_a_pod_that_is_always_restarted_runs_and_is_ready() -> None:
    world = World(gpu_node())
    world.create(PODS, a_pod(restartPolicy="Always"))
    world.step(9)
    conditions = {one["type"]: one["status"] for one in world.one("pods", "p")["status"]["conditions"]}

    assert world.phases() == ["Running"]
    assert conditions["Ready"] == "True"


def test_a_pod_may_wait_for_its_image_for_ever() -> None:
    world = World(gpu_node(), script=Script((PodRule(Outcome.WAITS, reason="ImagePullBackOff"),)))
    world.create(PODS, a_pod())
    world.step(9)
    (status,) = world.one("pods", "p")["status"]["containerStatuses"]

    assert world.phases() == ["Pending"]
    assert status["state"] == {"waiting": {"reason": "ImagePullBackOff"}}
    with pytest.raises(RefusedError, match='container "c" in pod "p" is waiting to start: trying and failing to pull'):
        world.progress.pods.log("w", "p", "c")


def test_a_pod_that_fits_no_node_stays_pending_and_an_event_says_why_once() -> None:
    world = World(gpu_node(gpus=1), gpu_node("gpu-1", gpus=0), gpu_node("gpu-2", unschedulable=True))
    world.create(PODS, a_pod(containers=wants(2)))
    world.step(5)
    (event,) = world.all("events")

    assert world.phases() == ["Pending"]
    assert event["reason"] == "FailedScheduling"
    assert event["message"] == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient nvidia.com/gpu. no new claims to "
        "deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert world.one("pods", "p")["status"]["conditions"][0]["message"] == event["message"]


def test_a_gpu_is_given_once_and_free_again_when_its_holder_has_ended() -> None:
    world = World(gpu_node(gpus=1), script=Script((PodRule(Outcome.SUCCEEDS, pod="first", steps=2),)))
    for name in ("first", "second"):
        world.create(PODS, a_pod(name, containers=wants(1)))
    world.step(2)
    busy = world.one("pods", "second")["spec"].get("nodeName")
    message = next(one["message"] for one in world.all("events") if one["reason"] == "FailedScheduling")
    world.step(9)

    assert busy is None
    assert message.endswith("preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.")
    assert world.phases() == ["Succeeded", "Succeeded"]


def test_a_pod_follows_its_selector_and_its_tolerations() -> None:
    taint = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    world = World(gpu_node("gpu-0"), gpu_node("gpu-1", taints=taint))
    selector = {"kubernetes.io/hostname": "gpu-1"}
    world.create(PODS, a_pod("no", nodeSelector=selector))
    world.create(PODS, a_pod("yes", nodeSelector=selector, tolerations=[{"operator": "Exists"}]))
    world.step(1)

    assert world.one("pods", "yes")["spec"]["nodeName"] == "gpu-1"
    assert "nodeName" not in world.one("pods", "no")["spec"]
    assert "1 node(s) had untolerated taint(s)" in world.all("events")[0]["message"]


def test_no_container_starts_on_a_node_that_is_not_ready() -> None:
    broken = gpu_node()
    broken["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    world = World(broken)
    world.create(PODS, a_pod())
    world.step(5)

    assert world.phases() == ["Pending"]
    assert world.one("pods", "p")["spec"]["nodeName"] == "gpu-0"


def test_a_pod_on_a_node_that_is_not_there_stays_pending() -> None:
    world = World(gpu_node())
    world.create(PODS, a_pod(nodeName="ghost"))
    world.step(5)

    assert world.phases() == ["Pending"]


def test_a_runtime_class_that_is_not_there_is_refused() -> None:
    world = World(gpu_node())
    world.create(PODS, a_pod(runtimeClassName="nvidia"))

    with pytest.raises(RefusedError) as refusal:
        world.create(PODS, a_pod("q", runtimeClassName="nvidia-legacy"))

    assert (refusal.value.code, refusal.value.message) == (
        403,
        'pods "q" is forbidden: pod rejected: RuntimeClass "nvidia-legacy" not found',
    )


@pytest.mark.parametrize("spec", [None, 5, {}, {"containers": 3}, {"containers": [{"image": "no name"}]}])
def test_a_pod_without_a_specification_is_refused(spec: Any) -> None:
    with pytest.raises(RefusedError) as refusal:
        World().create(PODS, {"metadata": {"name": "p"}, "spec": spec})

    assert (refusal.value.code, refusal.value.reason) == (422, "Invalid")


def test_a_log_is_empty_before_a_node_is_found_and_none_of_another_s_pod() -> None:
    world = World()
    world.create(PODS, a_pod())
    world.step()

    assert world.progress.pods.log("w", "p", "c") == b""
    assert world.progress.pods.log("w", "other", "c") is None
    with pytest.raises(RefusedError, match='previous terminated container "c" in pod "p" not found'):
        world.progress.pods.log("w", "p", "c", previous=True)


# --- DaemonSets and Jobs -----------------------------------------------------------------------


def test_a_daemonset_has_one_pod_on_each_node_that_it_may_run_on() -> None:
    cordoned = gpu_node("gpu-1", unschedulable=True)
    tainted = gpu_node("gpu-2", taints=[{"key": "x", "effect": "NoSchedule"}])
    other = gpu_node("cpu-0")
    other["metadata"]["labels"] = {}
    world = World(gpu_node("gpu-0"), cordoned, tainted, other)
    world.create(DAEMONSETS, a_daemonset(nodeSelector={"nvidia.com/gpu.present": "true"}))
    world.step(6)
    status = world.one("daemonsets.apps", "d")["status"]

    assert nodes_of(world) == ["gpu-0", "gpu-1"]
    assert set(world.phases()) == {"Running"}
    assert (status["desiredNumberScheduled"], status["numberReady"], status["observedGeneration"]) == (2, 2, 1)
    assert "numberUnavailable" not in status
    (owner,) = world.all("pods")[0]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("DaemonSet", "d", True)


def test_a_daemonset_is_not_ready_before_its_pods_are() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset())
    world.step()
    status = world.one("daemonsets.apps", "d")["status"]

    assert (status["desiredNumberScheduled"], status["numberReady"], status["numberUnavailable"]) == (1, 0, 1)


def test_a_daemonset_replaces_a_pod_that_was_deleted() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset())
    world.step(4)
    (before,) = world.all("pods")
    world.deletions.delete(PODS, "w", before["metadata"]["name"])
    world.step(5)
    (after,) = world.all("pods")

    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["phase"] == "Running"


def test_a_daemonset_leaves_a_node_whose_label_goes() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset(nodeSelector={"nvidia.com/gpu.present": "true"}))
    world.step(4)
    document = world.one("nodes", "gpu-0", None)
    document["metadata"]["labels"] = {}
    world.objects.replace(resource_of("nodes"), None, "gpu-0", document)
    world.step(4)

    assert world.all("pods") == []
    assert world.one("daemonsets.apps", "d")["status"]["desiredNumberScheduled"] == 0


def test_a_daemonset_whose_pods_are_refused_says_so() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset(runtimeClassName="ghost"))
    world.step()

    assert world.all("pods") == []
    assert world.all("events")[0]["reason"] == "FailedCreate"
    assert 'RuntimeClass "ghost" not found' in world.all("events")[0]["message"]


def test_five_hundred_nodes_get_their_pods_in_few_steps() -> None:
    world = World(*(gpu_node(f"n{number}") for number in range(500)))
    world.create(DAEMONSETS, a_daemonset())
    world.step(4)

    assert world.one("daemonsets.apps", "d")["status"]["numberReady"] == 500


def test_a_job_ends_when_enough_of_its_pods_have() -> None:
    world = World(gpu_node())
    created = world.create(JOBS, a_job(completions=3, parallelism=2))
    world.step(1)
    at_first = len(world.all("pods"))
    world.step(12)
    job = world.one("jobs.batch", "j")

    assert at_first == 2
    assert len(world.all("pods")) == 3
    assert job["status"]["succeeded"] == 3
    assert {one["type"] for one in job["status"]["conditions"]} == {"SuccessCriteriaMet", "Complete"}
    assert job["status"]["completionTime"] == NOW
    assert created["spec"]["selector"]["matchLabels"] == {
        "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
    }
    assert world.all("pods")[0]["metadata"]["labels"]["job-name"] == "j"


def test_a_job_fails_when_too_many_of_its_pods_have() -> None:
    world = World(gpu_node(), script=Script((PodRule(Outcome.FAILS),)))
    world.create(JOBS, a_job(backoffLimit=1))
    world.step(12)
    status = world.one("jobs.batch", "j")["status"]

    assert status["failed"] == 2
    assert [one["reason"] for one in status["conditions"]] == ["BackoffLimitExceeded"] * 2


def test_a_job_that_restarts_its_pods_always_is_refused() -> None:
    document = a_job()
    del document["spec"]["template"]["spec"]["restartPolicy"]

    with pytest.raises(RefusedError, match='Required value: valid values: "OnFailure", "Never"'):
        World().create(JOBS, document)


# --- deletion ----------------------------------------------------------------------------------


def test_a_pod_that_runs_is_first_told_to_stop() -> None:
    world = World(gpu_node())
    world.create(PODS, a_pod(restartPolicy="Always"))
    world.step(3)
    answer = world.deletions.delete(PODS, "w", "p")
    again = world.deletions.delete(PODS, "w", "p")
    there = world.one("pods", "p")["metadata"]["deletionTimestamp"]
    world.step()

    assert (answer["kind"], answer["metadata"]["deletionGracePeriodSeconds"], there) == ("Pod", 30, NOW)
    assert again["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]
    assert world.all("pods") == []
    assert world.progress.idle


@pytest.mark.parametrize("grace_s", [0, None])
def test_a_pod_leaves_at_once_where_nothing_has_to_stop(grace_s: int | None) -> None:
    world = World(gpu_node())
    world.create(PODS, a_pod(restartPolicy="Always" if grace_s == 0 else "Never"))
    world.step(5)

    answer = world.deletions.delete(PODS, "w", "p", grace_s=grace_s)

    assert "deletionTimestamp" not in answer["metadata"]
    assert world.all("pods") == []


def test_most_kinds_answer_a_deletion_with_a_status() -> None:
    world = World()
    created = world.create(DAEMONSETS, a_daemonset())

    assert world.deletions.delete(DAEMONSETS, "w", "d") == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "d", "group": "apps", "kind": "daemonsets", "uid": created["metadata"]["uid"]},
    }


def test_a_deleted_owner_takes_with_it_what_it_owns() -> None:
    world = World(gpu_node(), gpu_node("gpu-1"))
    world.create(DAEMONSETS, a_daemonset())
    world.create(PODS, a_pod("bystander", restartPolicy="Always"))
    world.step(4)
    world.deletions.delete(DAEMONSETS, "w", "d")
    gone_at_once = world.all("daemonsets.apps")
    world.step(3)

    assert gone_at_once == []
    assert [one["metadata"]["name"] for one in world.all("pods")] == ["bystander"]


def test_an_owner_that_is_deleted_in_the_foreground_goes_last() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset())
    world.step(4)
    answer = world.deletions.delete(DAEMONSETS, "w", "d", policy="Foreground")
    world.step()
    between = len(world.all("daemonsets.apps")), len(world.all("pods"))
    world.step(3)

    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert between[0] == 1
    assert world.all("daemonsets.apps") == world.all("pods") == []


def test_orphans_stay_and_have_no_owner() -> None:
    world = World(gpu_node())
    world.create(DAEMONSETS, a_daemonset())
    world.step(4)
    world.deletions.delete(DAEMONSETS, "w", "d", policy="Orphan")
    world.step(4)
    (left,) = world.all("pods")

    assert left["metadata"]["ownerReferences"] == []


def test_a_job_s_pods_are_orphaned_unless_another_policy_is_asked_for() -> None:
    world = World(gpu_node())
    for name in ("kept", "cleared"):
        world.create(JOBS, a_job(name))
    world.step(6)
    world.deletions.delete(JOBS, "w", "kept")
    world.deletions.delete(JOBS, "w", "cleared", policy="Background")
    world.step(3)

    assert [one["metadata"]["labels"]["job-name"] for one in world.all("pods")] == ["kept"]


def test_what_has_another_owner_stays() -> None:
    world = World()
    owners = [world.create(NAMESPACES, {"metadata": {"name": name}}, None) for name in ("a", "b")]
    references = [{"kind": "X", "name": "x", "uid": one["metadata"]["uid"]} for one in owners]
    world.create(PODS, {**a_pod(), "metadata": {"name": "p", "ownerReferences": references}})
    world.deletions.delete(NAMESPACES, None, "a")
    world.step(3)

    assert world.one("pods", "p")["metadata"]["ownerReferences"] == references[1:]


def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    world = World(gpu_node())
    world.create(NAMESPACES, {"metadata": {"name": "w"}}, None)
    world.create(NAMESPACES, {"metadata": {"name": "other"}}, None)
    world.create(DAEMONSETS, a_daemonset())
    world.create(PODS, a_pod("apart", restartPolicy="Always"), "other")
    world.step(4)
    answer = world.deletions.delete(NAMESPACES, None, "w")
    world.step(3)

    assert answer["status"]["phase"] == "Terminating"
    assert [one["metadata"]["name"] for one in world.all("namespaces")] == ["other"]
    assert [one["metadata"]["name"] for one in world.all("pods")] == ["apart"]
    assert {one["metadata"]["namespace"] for one in world.all("events")} == {"other"}


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(RefusedError, match="invalid deletion propagation policy"):
        World().deletions.delete(PODS, "w", "p", policy="Maybe")


def test_nothing_moves_where_nothing_was_made() -> None:
    world = World(gpu_node())
    version = world.objects.version
    world.step(3)

    assert world.progress.idle
    assert world.objects.version == version


# --- scripts -----------------------------------------------------------------------------------


def test_a_script_is_read_from_a_small_file() -> None:
    content = """
        pods:
          - {pod: "gpucheck-*", outcome: succeeds, log: "Test PASSED"}
          - {namespace: training, node: "gpu-?", outcome: fails, exit: 3, steps: 2}
          - {outcome: waits, reason: ErrImagePull}
    """
    script = read_script(content, name="s.yaml")
    rules = {
        place: script.rule(namespace=place[0], pod=place[1], node="gpu-1", restarts=False).shown_reason
        for place in (("x", "gpucheck-1"), ("training", "p"), ("x", "p"))
    }

    assert script.pods[1] == PodRule(Outcome.FAILS, namespace="training", node="gpu-?", exit=3, steps=2)
    assert list(rules.values()) == ["Completed", "Error", "ErrImagePull"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pods: [{}]", "Object missing required field `outcome`"),
        ("pods: [{outcome: explodes}]", "Invalid enum value 'explodes'"),
        ("pods: [{outcome: fails, when: now}]", "unknown field `when`"),
        ("pods: [{outcome: fails, exit: 0}]", "'fails' with exit 0, expected another than 0"),
        ("pods: [{outcome: succeeds, exit: 2}]", "'succeeds' with exit 2, expected 0"),
        ("pods: [{outcome: runs, steps: 0}]", "steps is 0, expected 1 or more"),
        ("- 1", "Expected `object`, got `array`"),
        ("{", "while parsing a flow"),
        ("\0", "special characters are not allowed"),
        ("[" * 5_000, "docs/embedded-cluster.md"),
    ],
)
def test_a_wrong_script_is_refused_by_name(content: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        read_script(content, name="s.yaml")

    assert message in str(refusal.value)
    assert str(refusal.value).startswith("s.yaml: ")


def test_a_script_s_file_is_read_or_refused_by_name(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("pods: [{outcome: runs}]")
    bad.write_bytes(b"\xff\xfe\x00")

    assert open_script(good) == Script((PodRule(Outcome.RUNS),))
    for path in (bad, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            open_script(path)


def test_the_script_in_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[1] / "docs/embedded-cluster.md").read_text()
    block = page[page.index("```yaml\n") + 8 :]

    assert len(read_script(block[: block.index("```")], name="the page").pods) == 3


def test_an_empty_script_changes_nothing() -> None:
    assert read_script("", name="s.yaml") == Script()


# --- over the wire -----------------------------------------------------------------------------


def first_event(cluster: EmbeddedCluster, query: str) -> dict[str, Any]:
    """Return the first thing that a watch of pods tells."""
    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", f"/api/v1/namespaces/default/pods?{query}")
        with connection.getresponse() as response:
            return dict(json.loads(response.readline()))


def test_a_cluster_runs_what_is_created_in_it() -> None:
    content = {"cluster/nodes.json": listed(gpu_node()), "cluster/pods.json": listed(pod())}
    script = Script((PodRule(Outcome.SUCCEEDS, log="one\ntwo\n"),))
    with EmbeddedCluster(bundle_of(content), name="t", script=script) as cluster:
        created = ask(cluster, "/api/v1/namespaces/default/pods", "POST", body=a_pod())
        ended = first_event(cluster, "watch=1&fieldSelector=metadata.name%3Dp,status.phase%3DSucceeded")
        log = ask(cluster, "/api/v1/namespaces/default/pods/p/log", query={"tailLines": "1"})
        wrong_uid = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
        refused = ask(cluster, "/api/v1/namespaces/default/pods/p", "DELETE", body=wrong_uid)
        own_uid = {"preconditions": {"uid": created.document["metadata"]["uid"]}}
        deleted = ask(cluster, "/api/v1/namespaces/default/pods/p", "DELETE", body=own_uid)

    assert (created.status, created.document["status"]["phase"]) == (201, "Pending")
    assert (ended["type"], ended["object"]["status"]["phase"]) == ("ADDED", "Succeeded")
    assert log.body == b"two\n"
    assert (refused.status, refused.document["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition" in refused.document["message"]
    assert deleted.document["metadata"]["name"] == "p"
