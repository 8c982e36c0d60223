"""The runtime layer of a host of which no Kubernetes was asked: which engine it has, and what is judged of it."""

from typing import Any, Final

import pytest

import suite
from bundle_builders import memory_host
from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.engine import CONFIGURATION, PROCESSES, Answer, Distribution, EngineKind
from kube_gpucheck.model import Missing, MissingKind, Outcome, Reading, Seen

PLAIN: Final = "/etc/containerd/config.toml"
RKE2: Final = CONFIGURATION[Distribution.RKE2]
K3S: Final = CONFIGURATION[Distribution.K3S]
CONTAINERD: Final = "/usr/bin/containerd"
KUBELET: Final = "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml"
ABSENT: Final = {"absent": True}
GONE: Final = {"error": "EIO"}
RUNC: Final = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
STARTS: Final = 'time="x" level=info msg="starting containerd" revision=y version=v1.7.27-k3s1\n'
SERVES: Final = STARTS + 'time="x" level=info msg="Start cri plugin with config {PluginConfig:{}}"\n'
LOADED: Final = "LoadState=loaded\nActiveState={}\nResult={}\n"


def text(content: str) -> dict[str, Any]:
    return {"text": content, "code": 0}


def running(*lines: str) -> dict[str, Any]:
    """Return the read of the processes."""
    return {f"exec:{PROCESSES}": text("".join(f"{line}\n" for line in lines))}


def unit(name: str, state: str = "active", result: str = "success") -> dict[str, Any]:
    """Return the read of a service."""
    return {f"exec:systemctl show {name}": text(LOADED.format(state, result))}


def said(node: Node) -> dict[str, set[Outcome]]:
    """Return what the checks of the runtime layer say of the host."""
    results = suite.judge_these(
        [one for one in suite.all_checks() if one.info.id.startswith(("RTM", "RTC"))], node.cluster
    )
    return {one.info.id: {other.outcome for other in one.others} for one in results}


def kind_of(reading: Reading[Any]) -> MissingKind | None:
    return reading.kind if isinstance(reading, Missing) else None


@pytest.mark.parametrize(
    ("reads", "kind", "distribution"),
    [
        (running(KUBELET, CONTAINERD), EngineKind.CONTAINERD, Distribution.PLAIN),
        (running(f"{KUBELET} --container-runtime-endpoint=unix:///var/run/crio/crio.sock"), EngineKind.CRI_O, None),
        (running(f"{KUBELET} --container-runtime-endpoint=unix:///run/cri-dockerd.sock"), EngineKind.DOCKER, None),
        (running(f"{KUBELET} --container-runtime-endpoint=unix:///run/isulad.sock"), EngineKind.OTHER, None),
        (running(KUBELET, "/usr/bin/crio"), EngineKind.CRI_O, None),
        (running(KUBELET, "/usr/bin/dockerd", CONTAINERD), EngineKind.CONTAINERD, Distribution.PLAIN),
        (running(KUBELET, "/usr/bin/dockerd", CONTAINERD, "/usr/bin/cri-dockerd"), EngineKind.DOCKER, None),
        ({**running(), **unit("crio", "failed"), **unit("containerd")}, EngineKind.CONTAINERD, Distribution.PLAIN),
        ({**running(), **unit("k3s-agent"), f"file:{K3S}": text(RUNC)}, EngineKind.CONTAINERD, Distribution.K3S),
        ({"file:/etc/crio/crio.conf": text("")}, EngineKind.CRI_O, None),
        ({"exec:containerd --version": text("containerd x v1.7.1 y")}, EngineKind.CONTAINERD, Distribution.PLAIN),
        (
            {
                **running("/snap/microk8s/x1/kubelite"),
                "file:/var/snap/microk8s/current/args/kubelet": text(
                    "--container-runtime-endpoint=${SNAP_COMMON}/run/containerd.sock\n"
                ),
            },
            EngineKind.CONTAINERD,
            Distribution.MICROK8S,
        ),
        (
            running("/usr/local/bin/rke2 server", f"containerd -c {RKE2} -a /run/k3s/containerd/containerd.sock"),
            EngineKind.CONTAINERD,
            Distribution.RKE2,
        ),
        (
            {
                **running("/usr/local/bin/k3s server", f"containerd -c {K3S}"),
                f"file:{K3S}": text(RUNC),
                f"file:{RKE2}": ABSENT,
            },
            EngineKind.CONTAINERD,
            Distribution.K3S,
        ),
        (
            {
                **running(f"{KUBELET} --container-runtime-endpoint=unix:///run/containerd/containerd.sock"),
                f"file:{K3S}": text(RUNC),
            },
            EngineKind.CONTAINERD,
            Distribution.PLAIN,
        ),
    ],
)
def test_the_engine_is_told_by_what_the_kubelet_is_told_what_runs_and_what_is_there(
    reads: dict[str, Any], kind: EngineKind, distribution: Distribution | None
) -> None:
    engine = memory_host(reads).runtime.engine

    assert engine.kind == Seen(kind)
    if distribution is not None:
        assert engine.distribution == Seen(distribution)


@pytest.mark.parametrize("gone", [f"exec:{PROCESSES}", f"file:{RKE2}", "exec:systemctl show containerd"])
def test_evidence_that_was_lost_leaves_the_engine_unknown(gone: str) -> None:
    whole = {**running(), **unit("containerd", "inactive"), f"file:{RKE2}": text(RUNC)}

    assert memory_host(whole).runtime.engine.distribution == Seen(Distribution.RKE2)
    engine = memory_host({**whole, gone: GONE}).runtime.engine
    assert MissingKind.ERROR in {kind_of(engine.kind), kind_of(engine.distribution)}


def test_what_k3s_was_told_is_read_where_it_tells_its_kubelet_for_its_command_line_is_hidden() -> None:
    folder = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d"
    reads = {
        **running("/usr/local/bin/k3s server", CONTAINERD),
        f"file:{folder}/00-k3s-defaults.conf": text("containerRuntimeEndpoint: unix:///run/k3s/containerd/x.sock\n"),
        f"file:{folder}/50-mine.conf": text(
            "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n"
        ),
        f"file:{K3S}": ABSENT,
        f"file:{PLAIN}": text(RUNC),
    }
    engine = memory_host(reads).runtime.engine

    assert engine.endpoint == Seen("/run/containerd/containerd.sock")
    assert engine.configuration_path == Seen(PLAIN)
    assert engine.kubelets_cgroup_driver == Seen("systemd")


def test_the_release_of_an_embedded_engine_stands_in_its_log_and_not_in_the_systems_program() -> None:
    reads = {f"file:{K3S}": text(RUNC), "exec:containerd --version": text("containerd x v2.1.0 y")}

    assert memory_host(reads, logs={"containerd": STARTS}).runtime.engine.release == Seen((1, 7, 27))
    assert memory_host(reads).runtime.engine.release == Seen(None)


def test_cri_o_tells_its_release_itself() -> None:
    engine = memory_host(
        {**running("/usr/bin/crio"), "exec:crio --version": text("crio version 1.30.2\n")}
    ).runtime.engine

    assert engine.release == Seen((1, 30, 2))
    assert engine.name == Seen("cri-o 1.30.2")


@pytest.mark.parametrize(
    ("reads", "log", "answers"),
    [
        (running(KUBELET, CONTAINERD), SERVES, True),
        (unit("containerd"), SERVES, True),
        (running(KUBELET, CONTAINERD), SERVES + STARTS, None),
        (running(KUBELET, CONTAINERD), None, None),
        ({**running(KUBELET), **unit("containerd", "failed", "exit-code")}, SERVES, False),
        ({**running(), **unit("kubelet", "failed"), **unit("containerd", "inactive")}, SERVES, False),
        ({**running(), **unit("containerd", "inactive")}, SERVES, None),
        (running(KUBELET, "/usr/bin/crio"), None, True),
        (
            {**running(KUBELET), **unit("crio", "failed", "exit-code"), "file:/etc/crio/crio.conf": text("")},
            None,
            False,
        ),
    ],
)
def test_whether_the_engine_answers_is_told_by_its_process_and_its_log(
    reads: dict[str, Any], log: str | None, answers: object
) -> None:
    reads = {f"file:{PLAIN}": text(RUNC), **reads}
    answer = memory_host(reads, logs={} if log is None else {"containerd": log}).runtime.engine.answer

    found = answer.value.answers if isinstance(answer, Seen) else None
    assert found is answers
    assert isinstance(answer, Seen) or answer.kind is MissingKind.NOT_ASKED


def test_an_engine_that_a_kubelet_needs_and_that_does_not_run_is_a_fault_that_names_its_service() -> None:
    reads = {**running(KUBELET), **unit("containerd", "failed", "exit-code"), f"file:{PLAIN}": text(RUNC)}
    node = memory_host(reads)

    assert node.runtime.engine.answer == Seen(
        Answer(answers=False, how="the host", why="no process of containerd runs, 'containerd' is failed (exit-code)")
    )
    assert said(node)["RTM-017"] == {Outcome.FAULT}


@pytest.mark.parametrize(
    "reads",
    [
        {},
        running(),
        running("/usr/bin/dockerd", f"{CONTAINERD} --config /var/run/docker/containerd/containerd.toml"),
        {**running("/usr/bin/dockerd", CONTAINERD), f"file:{PLAIN}": text('disabled_plugins = ["cri"]\n')},
        {**running(), **unit("docker"), **unit("containerd"), "file:/etc/docker/daemon.json": text("{}")},
        {**running(), "file:/etc/docker/daemon.json": text("{}"), f"file:{PLAIN}": ABSENT},
        {**running(), f"file:{PLAIN}": ABSENT, "exec:containerd --version": ABSENT},
    ],
)
def test_a_workstation_has_no_fault_of_a_runtime_that_nobody_needs(reads: dict[str, Any]) -> None:
    folders: dict[str, Any] = {f"list:{one}": {"entries": []} for one in ("/usr/bin", "/etc/cdi", "/var/run/cdi")}
    selinux = {"file:/sys/fs/selinux/enforce": ABSENT}
    node = memory_host({**folders, **selinux, **reads})

    outcomes = said(node)
    assert all(found <= {Outcome.NOT_ASKED, Outcome.NOT_APPLICABLE} for found in outcomes.values()), outcomes
    assert kind_of(node.runtime.engine.kind) is MissingKind.NOT_ASKED


def test_what_only_the_cluster_can_tell_is_not_asked_of_a_host() -> None:
    outcomes = said(memory_host({**running(KUBELET, CONTAINERD), f"file:{PLAIN}": text(RUNC)}))

    assert {name: found for name, found in outcomes.items() if name.startswith("RTC")} == {
        f"RTC-00{number}": {Outcome.NOT_ASKED} for number in range(1, 6)
    }
