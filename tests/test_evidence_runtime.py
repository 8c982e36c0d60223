"""The container runtime of one node, from its object and what was read on its host."""

import datetime
import json
from typing import Any

import pytest

from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.containerd import started_with
from kube_gpucheck.evidence.delivery import Mode
from kube_gpucheck.evidence.engine import STARTS, Distribution, EngineKind, moment, release_in
from kube_gpucheck.evidence.toolkit import ToolkitMode, auto_mode
from kube_gpucheck.model import Missing, MissingKind, Reading, Seen

NOW = datetime.datetime(2026, 11, 24, 0, 13, tzinfo=datetime.timezone.utc)
RKE2 = "/var/lib/rancher/rke2/agent/etc/containerd"
PLAIN = "/etc/containerd"
HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia"]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia".options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
"""
RUNC = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


def text(content: str, code: int | None = None) -> dict[str, Any]:
    return {"text": content} if code is None else {"text": content, "code": code}


def make(
    reads: dict[str, Any],
    *,
    kubelet: str = "v1.24.9+rke2r2",
    engine: str = "containerd://1.6.12-k3s1",
    labels: dict[str, str] | None = None,
    info: dict[str, str] | None = None,
    ready: dict[str, str] | None = None,
    api: dict[str, list[Any]] | None = None,
    logs: dict[str, str] | None = None,
) -> Node:
    """Return a node of one bundle with these host reads; a read of None was asked for and is gone."""
    node = {
        "metadata": {"name": "n1", "labels": {"nvidia.com/gpu.present": "true", **(labels or {})}},
        "status": {
            "conditions": [ready or {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}],
            "nodeInfo": {"kubeletVersion": kubelet, "containerRuntimeVersion": engine, **(info or {})},
        },
    }
    lists = {"nodes": [node], **(api or {})}
    manifest = {
        "format": 1,
        "tool": "test",
        "run": {"id": "x", "started": "2026-11-24T00:13:00Z", "gathered_at": "2026-11-24T00:13:00Z"},
        "provenance": "hand-made",
        "asked": {"api": list(lists), "host": {"n1": list(reads)}},
    }
    host = {"format": 1, "reads": {key: value for key, value in reads.items() if value is not None}}
    files = {f"cluster/{kind}.json": json.dumps({"items": items}).encode() for kind, items in lists.items()}
    files |= {"bundle.json": json.dumps(manifest).encode(), "nodes/n1/host.json": json.dumps(host).encode()}
    files |= {f"nodes/n1/logs/{unit}.log": log.encode() for unit, log in (logs or {}).items()}
    found = Cluster(memory_bundle("test", files)).node_of("n1")
    assert found is not None
    return found


def kind_of(reading: Reading[Any]) -> MissingKind | None:
    return reading.kind if isinstance(reading, Missing) else None


def daemonset(name: str, *, command: str, spec: dict[str, Any] | None = None, env: dict[str, str] | None = None) -> Any:
    container = {
        "name": name,
        "command": [command],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
    }
    counts = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberMisscheduled")
    return {
        "metadata": {"name": name, "namespace": "gpu"},
        "spec": {"template": {"spec": {"containers": [container], **(spec or {})}}},
        "status": dict.fromkeys(counts, 0),
    }


@pytest.mark.parametrize(
    ("kubelet", "labels", "image", "distribution"),
    [
        ("v1.24.9+rke2r2", {}, "", Distribution.RKE2),
        ("v1.33.3+k3s1", {}, "", Distribution.K3S),
        ("v1.30.0+k0s", {}, "", Distribution.K0S),
        ("v1.30.0", {"microk8s.io/cluster": "true"}, "", Distribution.MICROK8S),
        ("v1.29.1-gke.1589020", {}, "", Distribution.GKE),
        ("v1.29.0-eks-5e0fdde", {}, "Amazon Linux 2", Distribution.EKS),
        ("v1.28.6", {"node.openshift.io/os_id": "rhcos"}, "", Distribution.OPENSHIFT),
        ("v1.30.0", {}, "Talos (v1.8.0)", Distribution.TALOS),
        ("v1.36.2", {}, "Ubuntu 24.04.3 LTS", Distribution.PLAIN),
    ],
)
def test_the_distribution_is_told_by_kubelet_labels_and_image(
    kubelet: str, labels: dict[str, str], image: str, distribution: Distribution
) -> None:
    node = make({}, kubelet=kubelet, labels=labels, info={"osImage": image})

    assert node.runtime.engine.distribution == Seen(distribution)


def test_an_embedded_engine_is_read_at_its_own_path_and_no_other() -> None:
    node = make(
        {
            f"file:{RKE2}/config.toml": text(RUNC + HANDLER),
            "exec:containerd config dump": text(RUNC + "[plugins]\n", 0),
        }
    )

    assert node.runtime.handler_in_files == Seen(value=True)
    assert isinstance(node.runtime.configuration, Seen)
    assert node.runtime.configuration.value.nvidia[0].file == f"{RKE2}/config.toml"


def test_a_moved_data_folder_is_found_by_what_was_read() -> None:
    node = make({"file:/data/rancher/agent/etc/containerd/config.toml": text(RUNC + HANDLER)})

    assert node.runtime.engine.configuration_path == Seen("/data/rancher/agent/etc/containerd/config.toml")


def test_the_dump_of_another_containerd_says_nothing_of_an_embedded_one() -> None:
    node = make({"exec:containerd config dump": text('imports = ["/etc/containerd/config.toml"]\n' + RUNC, 0)})

    assert kind_of(node.runtime.configuration) is MissingKind.NOT_ASKED


def test_a_configuration_that_is_gone_is_not_replaced_by_another_source() -> None:
    node = make(
        {"exec:containerd config dump": None, f"file:{PLAIN}/config.toml": text(RUNC + HANDLER)}, kubelet="v1.36.2"
    )

    assert kind_of(node.runtime.configuration) is MissingKind.ERROR


def test_imports_are_read_breadth_first_and_in_order_of_name() -> None:
    node = make(
        {
            f"file:{PLAIN}/config.toml": text('imports = ["/etc/containerd/conf.d/*.toml"]\n' + RUNC),
            f"list:{PLAIN}/conf.d": {"entries": [{"name": "99-nvidia.toml"}, {"name": "10-a.toml"}, {"name": "x.bak"}]},
            f"file:{PLAIN}/conf.d/10-a.toml": text("version = 2\n"),
            f"file:{PLAIN}/conf.d/99-nvidia.toml": text(RUNC + HANDLER),
        },
        kubelet="v1.36.2",
        engine="containerd://1.7.27",
    )

    assert isinstance(node.runtime.configuration, Seen)
    assert node.runtime.configuration.value.files == (
        f"{PLAIN}/config.toml",
        f"{PLAIN}/conf.d/10-a.toml",
        f"{PLAIN}/conf.d/99-nvidia.toml",
    )


def test_a_drop_in_that_is_listed_and_was_not_read_leaves_the_configuration_unread() -> None:
    node = make(
        {
            f"file:{PLAIN}/config.toml": text('imports = ["/etc/containerd/conf.d/*.toml"]\n' + RUNC),
            f"list:{PLAIN}/conf.d": {"entries": [{"name": "99-nvidia.toml"}]},
        },
        kubelet="v1.36.2",
    )

    assert kind_of(node.runtime.files) is MissingKind.NOT_ASKED


def test_files_that_import_each_other_end() -> None:
    node = make(
        {
            f"file:{PLAIN}/config.toml": text('imports = ["/etc/containerd/b.toml"]\n' + RUNC),
            f"file:{PLAIN}/b.toml": text('version = 2\nimports = ["/etc/containerd/config.toml"]\n'),
        },
        kubelet="v1.36.2",
    )

    assert isinstance(node.runtime.files, Seen)


def test_a_file_that_is_no_toml_is_missing_and_not_empty() -> None:
    node = make({f"file:{RKE2}/config.toml": text("version = 2\n[plugins")})

    assert kind_of(node.runtime.configuration) is MissingKind.UNPARSABLE


def test_the_handler_of_another_engine_is_told_apart() -> None:
    node = make({f"file:{RKE2}/config.toml": text(RUNC), f"file:{PLAIN}/config.toml": text(RUNC + HANDLER)})

    assert node.runtime.handler_in_files == Seen(value=False)
    assert node.runtime.other_engine_is_configured == Seen(value=True)
    assert node.runtime.drop_in_is_not_imported == Seen(value=False)


def test_a_toolkit_that_came_after_the_service_started_is_newer() -> None:
    listing = {"entries": [{"name": "nvidia-container-runtime", "mode": "-rwxr-xr-x", "modified": "Jan 27 07:41"}]}
    node = make(
        {
            "list:/usr/bin": listing,
            "exec:systemctl show rke2-server": text(
                "ActiveState=active\nActiveEnterTimestamp=Fri 2026-01-27 07:12:03 UTC\n"
            ),
            f"file:{RKE2}/config.toml": text(RUNC),
        }
    )

    assert node.runtime.toolkit_newer_than_engine_start == Seen(value=True)
    assert node.runtime.distribution_detects_nvidia == Seen(value=True)
    assert node.runtime.engine.restart == "systemctl restart rke2-server"


def test_a_configuration_that_is_older_than_the_engine_is_loaded() -> None:
    node = make(
        {
            "exec:systemctl show rke2-server": text("ActiveState=active\nActiveEnterTimestamp=2023-01-27T07:50:00Z\n"),
            f"file:{RKE2}/config.toml": text(RUNC + HANDLER),
            f"stat:{RKE2}/config.toml": {"entries": [{"name": "config.toml", "modified": "2023-01-27T07:49:58Z"}]},
        }
    )

    assert node.runtime.handler_loaded == Seen(value=True)


@pytest.mark.parametrize(
    ("listed", "loaded"),
    [
        ("Fri Jan 27 07:50:00 2023 containerd\nFri Jan 27 07:10:00 2023 kubelet\n", Seen(value=True)),
        ("Fri Jan  6 07:50:00 2023 containerd\n", Seen(value=False)),
        ("Fri Jan 27 07:50:00 2023 dockerd\n", "no systemd runs, and no engine among the processes"),
        (
            "Fri Jan 27 07:50:00 2023 containerd\nFri Jan 27 07:10:00 2023 containerd\n",
            "2 processes 'containerd' run, and which of them is the kubelet's engine is not known",
        ),
    ],
)
def test_where_no_systemd_is_the_engines_process_tells_when_it_was_started(
    listed: str, loaded: Seen[bool] | str
) -> None:
    node = make(
        {
            "exec:systemctl show rke2-agent": {"absent": True},
            f"exec:{STARTS}": text(listed, 0),
            f"file:{RKE2}/config.toml": text(RUNC + HANDLER),
            f"stat:{RKE2}/config.toml": {"entries": [{"name": "config.toml", "modified": "2023-01-27T07:49:58Z"}]},
        }
    )

    found = node.runtime.handler_loaded
    if isinstance(loaded, str):
        assert isinstance(found, Missing)
        assert loaded in found.reason
    else:
        assert found == loaded


def test_an_agent_is_restarted_by_its_own_service() -> None:
    assert make({}, labels={"node-role.kubernetes.io/control-plane": "true"}).runtime.engine.unit == Seen("rke2-server")
    assert make({}).runtime.engine.unit == Seen("rke2-agent")


def test_an_answer_of_another_socket_is_no_answer_of_this_engine() -> None:
    answer = {
        "config": {
            "containerdEndpoint": "/run/containerd/containerd.sock",
            "containerd": {"runtimes": {"runc": {}}},
        },
        "status": {"conditions": [{"type": "RuntimeReady", "status": False}]},
    }
    node = make({"exec:crictl info": text(json.dumps(answer), 0)})

    assert node.runtime.engine.running == Seen(None)
    assert node.runtime.engine_answers == Seen(value=True)


@pytest.mark.parametrize(
    ("read", "answers"),
    [
        (
            text("dial unix /run/k3s/containerd/containerd.sock: connect: no such file or directory", 1),
            Seen(value=False),
        ),
        (text("rpc error: code = DeadlineExceeded desc = context deadline exceeded", 1), Seen(value=False)),
        (text("unknown service runtime.v1.RuntimeService", 1), Seen(value=False)),
        (text("connect: permission denied", 1), MissingKind.FORBIDDEN),
        (text("", 1), MissingKind.ERROR),
        (text('{"status": ', 0), MissingKind.UNPARSABLE),
        ({"absent": True}, Seen(value=True)),
        (None, MissingKind.ERROR),
    ],
)
def test_an_engine_answers_as_crictl_says(read: Any, answers: Any) -> None:
    found = make({"exec:crictl info": read}).runtime.engine_answers

    assert (found if isinstance(found, Seen) else found.kind) == answers


@pytest.mark.parametrize(
    ("status", "message", "answers"),
    [
        ("True", "kubelet is posting ready status", Seen(value=True)),
        ("False", "container runtime is down", Seen(value=False)),
        (
            "False",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady",
            Seen(value=True),
        ),
        ("Unknown", "Kubelet stopped posting node status.", MissingKind.ERROR),
    ],
)
def test_without_crictl_the_kubelet_says_whether_the_engine_answers(status: str, message: str, answers: Any) -> None:
    found = make({}, ready={"type": "Ready", "status": status, "message": message}).runtime.engine_answers

    assert (found if isinstance(found, Seen) else found.kind) == answers


def test_a_program_is_absent_only_where_packages_put_it_and_it_is_not() -> None:
    assert make({"list:/usr/bin": {"entries": []}}).runtime.toolkit_installed == Seen(value=False)
    assert kind_of(make({"list:/usr/local/nvidia": {"entries": []}}).runtime.toolkit_installed) is MissingKind.NOT_ASKED
    filtered = {"entries": [], "filtered": "^runc$"}
    assert kind_of(make({"list:/usr/bin": filtered}).runtime.toolkit_installed) is MissingKind.NOT_ASKED


@pytest.mark.parametrize(
    ("version", "tegra", "mode"),
    [((1, 17), False, ToolkitMode.LEGACY), ((1, 18), False, ToolkitMode.JIT_CDI), ((1, 20), True, ToolkitMode.CSV)],
)
def test_auto_means_what_the_version_makes_of_it(version: tuple[int, int], mode: ToolkitMode, *, tegra: bool) -> None:
    assert auto_mode(version, tegra=tegra) is mode


def test_without_any_sign_gpus_come_by_a_runtime_class() -> None:
    assert make({}).delivery == Seen(frozenset({Mode.RUNTIME_CLASS}))


@pytest.mark.parametrize(
    ("parts", "labels", "modes"),
    [
        (
            [
                daemonset(
                    "plugin", command="nvidia-device-plugin", env={"DEVICE_LIST_STRATEGY": "cdi-annotations,cdi-cri"}
                )
            ],
            {},
            {Mode.CDI_ENGINE},
        ),
        (
            [
                daemonset(
                    "plugin",
                    command="nvidia-device-plugin",
                    env={"DEVICE_LIST_STRATEGY": "cdi-cri"},
                    spec={"runtimeClassName": "nvidia"},
                )
            ],
            {},
            {Mode.CDI_ENGINE, Mode.RUNTIME_CLASS},
        ),
        ([daemonset("dra", command="gpu-kubelet-plugin")], {}, {Mode.DRA}),
        (
            [daemonset("toolkit", command="nvidia-toolkit", env={"ENABLE_NRI_PLUGIN": "true"})],
            {},
            {Mode.NRI},
        ),
        ([], {"cloud.google.com/gke-accelerator": "nvidia-l4"}, {Mode.PROVIDER}),
        ([], {"nvidia.com/gpu.workload.config": "vm-passthrough"}, {Mode.VM_PASSTHROUGH}),
        (
            [daemonset("elsewhere", command="gpu-kubelet-plugin", spec={"nodeSelector": {"a": "b"}})],
            {},
            {Mode.RUNTIME_CLASS},
        ),
    ],
)
def test_each_way_of_delivery_is_told_by_what_declares_it(
    parts: list[Any], labels: dict[str, str], modes: set[Mode]
) -> None:
    node = make({}, labels=labels, api={"daemonsets.apps": parts})

    assert node.delivery == Seen(frozenset(modes))


def test_nvidia_as_the_default_runtime_is_told_by_its_program() -> None:
    default = '[plugins."io.containerd.grpc.v1.cri".containerd]\n  default_runtime_name = "nvidia"\n'
    node = make({f"file:{RKE2}/config.toml": text(RUNC + default + HANDLER)})

    assert node.delivery == Seen(frozenset({Mode.DEFAULT_RUNTIME}))
    assert node.runtime.default_is_nvidia == Seen(value=True)


def test_cri_o_is_read_at_its_own_paths() -> None:
    conf = '[crio.runtime.runtimes.nvidia]\nruntime_path = "/usr/bin/nvidia-container-runtime"\n'
    node = make(
        {
            "file:/etc/crio/crio.conf": {"absent": True},
            "list:/etc/crio/crio.conf.d": {"entries": [{"name": "99-nvidia.toml"}]},
            "file:/etc/crio/crio.conf.d/99-nvidia.toml": text(conf),
        },
        kubelet="v1.28.6",
        engine="cri-o://1.28.2",
    )

    assert node.runtime.engine.kind == Seen(EngineKind.CRI_O)
    assert node.runtime.handler_in_files == Seen(value=True)
    assert node.runtime.engine.restart == "systemctl restart crio"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2023-01-27T07:50:00Z", "2023-01-27T07:50:00+00:00"),
        ("2023-01-27T07:50:00.123456+01:00", "2023-01-27T07:50:00+01:00"),
        ("Fri 2023-01-27 07:50:00 UTC", "2023-01-27T07:50:00+00:00"),
        ("2023-01-27 07:50:00.5 +0100", "2023-01-27T07:50:00+01:00"),
        ("Nov 23 23:49", "2026-11-23T23:49:00+00:00"),
        ("Dec 31 23:49", "2025-12-31T23:49:00+00:00"),
        ("Jan  1  1970", "1970-01-01T00:00:00+00:00"),
        ("2023-13-40 99:99", None),
        ("n/a", None),
        ("", None),
    ],
)
def test_a_time_is_read_as_tools_write_it(written: str, read: str | None) -> None:
    found = moment(written, NOW)

    assert (None if found is None else found.isoformat()) == read


@pytest.mark.parametrize(
    ("printed", "release"),
    [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", (1, 6, 20)),
        ("1.7.20-k3s1", (1, 7, 20)),
        ("1.7", (1, 7)),
        ("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7", (2, 1, 4)),
        ("Unknown", None),
        ("", None),
    ],
)
def test_a_release_is_read_as_engines_print_it(printed: str, release: tuple[int, ...] | None) -> None:
    assert release_in(printed) == release


LISTED = "exec:ps -e -o args="
"""The read of command lines."""
SYSTEM = "/usr/bin/containerd --config /opt/containerd/config.toml --address /run/own/containerd.sock"


def test_a_distribution_that_was_told_to_use_the_systems_containerd_is_read_there() -> None:
    kubelet = "/var/lib/rancher/rke2/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock"
    node = make({LISTED: text(kubelet + "\n", 0), f"file:{PLAIN}/config.toml": text(RUNC + HANDLER)})

    assert node.runtime.engine.endpoint == Seen("/run/containerd/containerd.sock")
    assert node.runtime.engine.configuration_path == Seen(f"{PLAIN}/config.toml")
    assert node.runtime.engine.unit == Seen("containerd")
    assert node.runtime.handler_in_files == Seen(value=True)


def test_the_engines_own_command_line_says_where_its_file_lies() -> None:
    configuration = "containerRuntimeEndpoint: unix:///var/run/own/containerd.sock\n"
    node = make(
        {LISTED: text(SYSTEM + "\n", 0), "file:/var/lib/kubelet/config.yaml": text(configuration)}, kubelet="v1.36.2"
    )

    assert node.runtime.engine.endpoint == Seen("/run/own/containerd.sock")
    assert node.runtime.engine.configuration_path == Seen("/opt/containerd/config.toml")


def test_an_engine_at_another_socket_than_the_kubelets_says_nothing_of_the_kubelets() -> None:
    kubelet = "kubelet --container-runtime-endpoint unix:///run/containerd/containerd.sock"
    node = make({LISTED: text(f"{SYSTEM}\n{kubelet}\n", 0)}, kubelet="v1.36.2")

    assert node.runtime.engine.configuration_path == Seen(f"{PLAIN}/config.toml")


def test_command_lines_that_are_gone_leave_the_path_unknown() -> None:
    assert kind_of(make({LISTED: None}).runtime.engine.configuration_path) is MissingKind.ERROR


def test_docker_behind_cri_dockerd_is_read_at_its_own_file() -> None:
    daemon = """{
      "default-runtime": "nvidia",
      "exec-opts": ["native.cgroupdriver=cgroupfs"],
      "runtimes": {
        "nvidia": {"path": "nvidia-container-runtime", "runtimeArgs": []}
      }
    }"""
    node = make({"file:/etc/docker/daemon.json": text(daemon)}, kubelet="v1.30.0", engine="docker://26.1.4")

    assert node.runtime.engine.kind == Seen(EngineKind.DOCKER)
    assert node.runtime.engine.restart == "systemctl restart docker"
    assert node.runtime.default_is_nvidia == Seen(value=True)
    assert node.runtime.gives_systemd_cgroups == Seen(value=False)
    assert isinstance(node.runtime.configuration, Seen)
    assert str(node.runtime.configuration.value.nvidia[0].origin) == "/etc/docker/daemon.json:5"


@pytest.mark.parametrize("content", ["{", "[]", '{"runtimes": []}', '{"runtimes": {"a": {"path": 1}}}', "[" * 5000])
def test_a_file_of_docker_that_cannot_be_read_is_missing_and_says_so(content: str) -> None:
    node = make({"file:/etc/docker/daemon.json": text(content)}, kubelet="v1.30.0", engine="docker://26.1.4")

    assert kind_of(node.runtime.configuration) is MissingKind.UNPARSABLE


def test_other_engines_are_told_apart_from_the_kubelets_by_the_line_that_names_nvidia() -> None:
    daemon = '{\n  "runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}\n}\n'
    plain = RUNC + '# BinaryName = "/usr/bin/nvidia-container-runtime"\n'
    node = make(
        {
            f"file:{RKE2}/config.toml": text(RUNC),
            f"file:{PLAIN}/config.toml": text(plain),
            "file:/etc/docker/daemon.json": text(daemon),
        }
    )

    assert node.runtime.told_elsewhere == Seen(("/etc/docker/daemon.json:2",))


def test_where_no_other_engines_file_was_read_nothing_is_said_of_one() -> None:
    node = make({f"file:{RKE2}/config.toml": text(RUNC)})

    assert kind_of(node.runtime.told_elsewhere) is MissingKind.NOT_ASKED
    assert node.runtime.other_engine_is_configured == Seen(value=False)


def test_without_a_main_file_containerd_reads_no_drop_in_whatever_its_default_says() -> None:
    node = make(
        {
            f"file:{PLAIN}/config.toml": {"absent": True},
            f"list:{PLAIN}/conf.d": {"entries": [{"name": "99-nvidia.toml"}]},
            f"file:{PLAIN}/conf.d/99-nvidia.toml": text(RUNC + HANDLER),
        },
        kubelet="v1.36.2",
        engine="containerd://2.2.1",
    )

    assert node.runtime.handler_in_files == Seen(value=False)
    assert node.runtime.drop_in_is_not_imported == Seen(value=True)


def test_a_file_that_was_not_read_whole_is_neither_right_nor_wrong() -> None:
    whole = {f"file:{RKE2}/config.toml": {"text": RUNC + "[plug", "truncated": True}}

    assert kind_of(make(whole).runtime.refusal) is MissingKind.UNPARSABLE


def test_a_file_that_may_not_be_read_is_neither_right_nor_wrong() -> None:
    assert kind_of(make({f"file:{RKE2}/config.toml": {"error": "EACCES"}}).runtime.refusal) is MissingKind.FORBIDDEN


@pytest.mark.parametrize(
    ("kubelet", "engine", "driver"),
    [
        ("v1.30.4", "containerd://2.0.1", "systemd"),
        ("v1.31.0", "containerd://2.0.1", None),
        ("v1.31.0", "containerd://1.7.27", "systemd"),
        ("v1.34.0", "cri-o://1.34.1", None),
    ],
)
def test_a_kubelet_that_asks_the_engine_has_no_cgroup_driver_of_its_own(
    kubelet: str, engine: str, driver: str | None
) -> None:
    node = make({"file:/var/lib/kubelet/config.yaml": text("cgroupDriver: systemd\n")}, kubelet=kubelet, engine=engine)

    assert node.runtime.engine.kubelets_cgroup_driver == Seen(driver)


@pytest.mark.parametrize(("engine", "on"), [("containerd://1.7.30", False), ("containerd://2.1.0", True)])
def test_nri_is_on_from_containerd_2_on_where_no_file_says_otherwise(engine: str, *, on: bool) -> None:
    node = make({f"file:{PLAIN}/config.toml": text("version = 2\n")}, kubelet="v1.36.2", engine=engine)

    assert node.runtime.nri_is_enabled == Seen(on)


def test_the_log_of_containerd_2_says_in_json_what_it_started_with() -> None:
    config = {"containerd": {"runtimes": {"nvidia": {"options": {"BinaryName": "/x/nvidia-container-runtime"}}}}}
    line = f'time="t" level=info msg="starting cri plugin" config={json.dumps(json.dumps(config))}\n'
    node = make(
        {f"file:{PLAIN}/config.toml": text("version = 2\n" + HANDLER), "log:containerd": text("")},
        kubelet="v1.36.2",
        engine="containerd://2.1.0",
        logs={"containerd": "Start cri plugin with config nothing\n" + line},
    )

    loaded = node.runtime.loaded
    assert isinstance(loaded, Seen)
    assert [other for _, other in loaded.value.other] == ["/x/nvidia-container-runtime"]


@pytest.mark.parametrize("log", ["", "starting cri plugin", 'starting cri plugin" config="{"', "Start cri plugin " * 9])
def test_a_log_that_does_not_say_it_is_passed_over(log: str) -> None:
    assert started_with(log) is None


@pytest.mark.parametrize(
    ("kubelet", "engine", "labels", "configure", "edited", "restart"),
    [
        (
            "v1.32.3+rke2r1",
            "containerd://2.0.4-k3s2",
            {},
            "run 'systemctl restart rke2-agent': its service looks for the toolkit when it starts",
            f"{RKE2}/config-v3.toml.tmpl, below a first line '{{{{ template \"base\" . }}}}'",
            "systemctl restart rke2-agent",
        ),
        (
            "v1.28.5+k3s1",
            "containerd://1.7.11-k3s2",
            {"node-role.kubernetes.io/control-plane": "true"},
            "run 'systemctl restart k3s'",
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
            "systemctl restart k3s",
        ),
        (
            "v1.30.4+k0s",
            "containerd://1.7.20",
            {"node-role.kubernetes.io/control-plane": "true"},
            "--config=/etc/k0s/containerd.d/nvidia.toml', then 'systemctl restart k0scontroller'",
            "/etc/k0s/containerd.d/nvidia.toml",
            "systemctl restart k0scontroller",
        ),
        (
            "v1.30.4",
            "containerd://1.6.28",
            {"microk8s.io/cluster": "true"},
            "run 'microk8s enable nvidia'",
            "/var/snap/microk8s/current/args/containerd-template.toml",
            "microk8s stop && microk8s start",
        ),
        (
            "v1.29.9",
            "cri-o://1.29.9",
            {"node.openshift.io/os_id": "rhcos"},
            "let the GPU Operator do it",
            "a file of /etc/crio/crio.conf.d",
            "systemctl restart crio",
        ),
        (
            "v1.33.0",
            "containerd://2.1.1",
            {},
            "run 'nvidia-ctk runtime configure --runtime=containerd', then 'systemctl restart containerd'",
            "/etc/containerd/config.toml",
            "systemctl restart containerd",
        ),
    ],
)
def test_a_remedy_is_the_command_of_this_distribution(
    kubelet: str, engine: str, labels: dict[str, str], configure: str, edited: str, restart: str
) -> None:
    found = make({}, kubelet=kubelet, engine=engine, labels=labels).runtime.engine

    assert configure in found.configure
    assert found.editable.startswith(edited)
    assert found.restart == restart


@pytest.mark.parametrize(
    ("kubelet", "said"),
    [
        ("v1.32.3+rke2r1", "set CONTAINERD_SOCKET=/run/k3s/containerd/containerd.sock and no CONTAINERD_CONFIG"),
        ("v1.30.4+k0s", "RUNTIME_CONFIG_SOURCE=file in toolkit.env of the ClusterPolicy"),
        ("v1.33.0", "delete the pod of the GPU Operator's toolkit on the node: it writes the handler"),
    ],
)
def test_under_the_gpu_operator_a_remedy_is_what_its_toolkit_must_be_told(kubelet: str, said: str) -> None:
    toolkit = daemonset("nvidia-container-toolkit-daemonset", command="nvidia-ctk-installer")

    assert said in make({}, kubelet=kubelet, api={"daemonsets.apps": [toolkit]}).runtime.engine.configure
