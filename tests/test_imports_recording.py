import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kube_gpucheck.errors import BundleError
from kube_gpucheck.evidence.bundle import Bundle, Entry, Read, encode_manifest, memory_bundle, open_bundle
from kube_gpucheck.evidence.host import Host
from kube_gpucheck.evidence.lists import ListRecord
from kube_gpucheck.evidence.redaction import Redactor
from kube_gpucheck.imports.recording import import_recording, recognise
from kube_gpucheck.model import Missing, MissingKind, Seen

RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "bundles" / "recorded"

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
    "status": {"nodeInfo": {"bootID": "b-1"}},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "gpu"},
    "spec": {"containers": [{"name": "c"}]},
}
APIS = {
    "kind": "APIGroupList",
    "groups": [
        {"name": "apps", "versions": [{"version": "v1"}]},
        {"name": "nvidia.com", "versions": [{"version": "v1"}]},
    ],
}


def objects(**lists: Any) -> dict[str, Any]:
    """Return an objects.json: one node and one pod, and whatever else is given."""
    kinds = {"nodes": [NODE], "pods": [POD], **lists}
    return {
        kind: {"kind": "List", "apiVersion": "v1", "items": items} if isinstance(items, list) else items
        for kind, items in kinds.items()
    }


def record(folder: Path, files: dict[str, Any]) -> Path:
    """Write a recording: JSON for what is no text."""
    folder.mkdir(exist_ok=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        raw = (
            content
            if isinstance(content, bytes)
            else str.encode(content if isinstance(content, str) else json.dumps(content))
        )
        target.write_bytes(raw)
    return folder


def imported(folder: Path) -> Bundle:
    """Return the bundle of a recording."""
    manifest, files = import_recording(folder)
    return memory_bundle(folder.name, {**files, "bundle.json": encode_manifest(manifest, files)})


def of(tmp_path: Path, files: dict[str, Any]) -> Bundle:
    return imported(record(tmp_path / "state", {"objects.json": objects(), **files}))


def recorded(state: str) -> tuple[Bundle, Host]:
    bundle = open_bundle(RECORDED / state)
    return bundle, Host(bundle, "gpu-node-0")


def kept(bundle: Bundle, kind: str) -> list[Any]:
    """Return a kind's objects as the bundle holds them."""
    content = bundle.store.read(f"cluster/{kind}.json")
    assert content is not None
    items: list[Any] = json.loads(content)["items"]
    return items


# --- recordings of a real cluster ------------------------------------------------------------------


def test_every_recorded_state_stands_in_the_fixtures_whole() -> None:
    states = sorted(path for path in RECORDED.iterdir() if path.is_dir())

    assert len(states) > 25
    for state in states:
        bundle = open_bundle(state)
        assert bundle.manifest.provenance == "recorded"
        assert bundle.manifest.not_real
        assert set(bundle.store.paths()) == {*bundle.manifest.files, "bundle.json"}


def test_a_binary_that_is_not_there_is_seen_as_missing_from_its_folder() -> None:
    _, host = recorded("runtime-binary-missing")

    assert host.entry("/usr/local/nvidia/toolkit/nvidia-container-runtime") == Seen(None)
    assert host.entry("/usr/bin/nvidia-container-cli") == Seen(None)
    assert isinstance(host.entry("/usr/bin/nvidia-container-runtime"), Seen)
    assert isinstance(host.entry("/usr/bin/crictl"), Missing)


def test_an_engine_that_does_not_answer_leaves_its_error() -> None:
    _, host = recorded("containerd-down")

    answer = host.command("crictl info")

    assert isinstance(answer, Seen)
    assert answer.value is not None
    assert answer.value.status == 1
    assert "containerd.sock: connect: no such file or directory" in answer.value.text


def test_an_error_in_place_of_a_log_is_no_log() -> None:
    bundle, _ = recorded("no-nvidia-runtime")

    log = bundle.log("nvidia-device-plugin", "nvidia-device-plugin-j4m4t", "nvidia-device-plugin-ctr")

    assert isinstance(log, Missing)
    assert log.kind is MissingKind.ERROR
    assert log.reason.endswith("is waiting to start: ContainerCreating")


def test_a_kind_that_is_not_served_is_seen_as_such() -> None:
    bundle, _ = recorded("before-label")

    assert bundle.kind("nodefeatures.nfd.k8s-sigs.io") == Seen(None)
    assert bundle.kind("clusterpolicies.nvidia.com") == Seen(None)
    assert isinstance(bundle.kind("runtimeclasses.node.k8s.io"), Seen)


def test_configuration_that_was_copied_is_a_file_and_a_listing() -> None:
    _, told_apart = recorded("containerd-not-restarted")
    _, without = recorded("no-nvidia-runtime")

    assert isinstance(told_apart.file("/etc/containerd/conf.d/99-nvidia.toml"), Seen)
    assert without.listing("/etc/containerd/conf.d") == Seen(None)
    assert without.entry("/etc/containerd/conf.d/99-nvidia.toml") == Seen(None)


def test_device_nodes_and_the_driver_are_read_from_the_dumps() -> None:
    bundle, host = recorded("healthy")

    assert host.entry("/dev/nvidia0") == Seen(
        Entry("nvidia0", "char", "crw-rw-rw-", major=195, minor=0, modified="Nov 24 00:11")
    )
    assert host.entry("/dev/nvidia1") == Seen(None)
    assert host.file("/sys/module/nvidia/version") == Seen("580.159.04\n")
    assert host.link("/sys/bus/pci/devices/0000:00:06.0/driver") == Seen("../../../bus/pci/drivers/nvidia")
    assert host.read("file:/proc/modules") == Seen(
        Read(
            text="nvidia_uvm 1830912 - - Live 0xffffffffc080c000 (O)\nnvidia 14299136 - - Live 0xffffffffc0400000 (O)\n"
        )
    )
    assert bundle.host_boot_id("gpu-node-0") == "75d10313-8573-4a62-ae6a-d67eac542c41"


def test_nvml_keeps_its_return_code() -> None:
    _, host = recorded("driver-library-version-mismatch")

    first = host.nvml("nvmlInit_v2")

    assert isinstance(first, Seen)
    assert first.value.code == 18


def test_a_checkpoint_that_its_folder_does_not_hold_is_absent() -> None:
    _, host = recorded("before-label")

    assert host.file("/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint") == Seen(None)


def test_a_host_without_a_cluster_is_a_recording_too() -> None:
    bundle, host = recorded("bare-host")

    assert bundle.hosts == ("gpu-node-0",)
    assert bundle.manifest.asked.api == ()
    assert bundle.gathered_at == datetime.datetime(2026, 11, 23, 23, 44, 59, tzinfo=datetime.timezone.utc)
    assert host.file("/sys/module/nvidia/version") == Seen("580.159.04\n")
    assert isinstance(host.command("crictl info"), Missing)


# --- the API -----------------------------------------------------------------------------------------


def test_kinds_are_named_with_their_group(tmp_path: Path) -> None:
    lists = objects(
        daemonsets=[],
        clusterpolicies=[{"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy"}],
        widgets=[{"apiVersion": "example.org/v1", "kind": "Widget"}],
    )
    bundle = of(tmp_path, {"objects.json": lists})

    assert bundle.manifest.asked.api == (
        "discovery",
        "nodes",
        "pods",
        "daemonsets.apps",
        "clusterpolicies.nvidia.com",
        "widgets.example.org",
    )
    assert bundle.kind("daemonsets.apps") == Seen(ListRecord(()))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            'Error from server (Forbidden): events is forbidden: User "u" cannot list resource "events"',
            MissingKind.FORBIDDEN,
        ),
        ("error: You must be logged in to the server (Unauthorized)", MissingKind.FORBIDDEN),
        ("Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded)", MissingKind.TIMEOUT),
        ("Error from server (InternalError): an error on the server", MissingKind.ERROR),
    ],
)
def test_a_refusal_is_missing_with_the_servers_words(tmp_path: Path, error: str, kind: MissingKind) -> None:
    bundle = of(tmp_path, {"objects.json": objects(events={"error": f"{error}\n"})})

    reason = error.partition("): ")[2] if error.startswith("Error from server") else error
    assert bundle.kind("events") == Missing(kind, reason, "api/events")


@pytest.mark.parametrize("value", [None, 7, "pods", [], {"items": {}}, {"items": None}, {"kind": "List"}])
def test_a_list_that_is_none_is_unparsable(tmp_path: Path, value: object) -> None:
    folder = record(tmp_path / "state", {"objects.json": json.dumps({**objects(), "daemonsets": value})})

    reading = imported(folder).kind("daemonsets.apps")

    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE


def test_a_list_of_which_pages_are_missing_is_missing(tmp_path: Path) -> None:
    part = {"kind": "List", "metadata": {"continue": "abc"}, "items": []}

    assert isinstance(of(tmp_path, {"objects.json": objects(events=part)}).kind("events"), Missing)


def test_a_malformed_item_does_not_lose_its_list(tmp_path: Path) -> None:
    bundle = of(tmp_path, {"objects.json": objects(pods=[POD, 7, {"metadata": None}, {"metadata": {"name": 3}}])})

    reading = bundle.kind("pods")

    assert isinstance(reading, Seen)
    assert reading.value is not None
    assert len(reading.value.items) == 4


def test_a_kind_of_a_served_group_that_is_refused_is_not_served(tmp_path: Path) -> None:
    refused = {"error": 'error: the server doesn\'t have a resource type "nvidiadrivers"'}
    files = {"objects.json": objects(nvidiadrivers=refused, daemonsets=[]), "api/api-resources.json": APIS}
    bundle = of(tmp_path, files)

    assert bundle.kind("nvidiadrivers.nvidia.com") == Seen(None)
    assert isinstance(bundle.kind("clusterpolicies.nvidia.com"), Missing)
    assert bundle.kind("nodefeatures.nfd.k8s-sigs.io") == Seen(None)


def test_resources_of_a_group_come_from_lists_behind_the_groups(tmp_path: Path) -> None:
    resources = {
        "kind": "APIResourceList",
        "groupVersion": "nvidia.com/v1",
        "resources": [{"name": "clusterpolicies"}, {"name": "clusterpolicies/status"}],
    }
    bundle = of(tmp_path, {"api/api-resources.json": json.dumps(APIS) + "\n" + json.dumps(resources)})

    assert bundle.kind("nvidiadrivers.nvidia.com") == Seen(None)
    assert isinstance(bundle.kind("clusterpolicies.nvidia.com"), Missing)


@pytest.mark.parametrize("content", ["", '{"kind":"APIGroupLi', "[]", "error: refused", "\0\0"])
def test_without_the_groups_a_kind_that_nobody_asked_for_is_not_absent(tmp_path: Path, content: str) -> None:
    refused = {"error": 'error: the server doesn\'t have a resource type "nodefeatures"'}
    files = {"objects.json": objects(nodefeatures=refused, daemonsets=[]), "api/api-resources.json": content}
    bundle = of(tmp_path, files)

    assert bundle.kind("nodefeatures.nfd.k8s-sigs.io") == Seen(None)
    assert bundle.kind("daemonsets.apps") == Seen(ListRecord(()))
    assert isinstance(bundle.kind("clusterpolicies.nvidia.com"), Missing)


def test_the_servers_version_is_discovered(tmp_path: Path) -> None:
    version = {"clientVersion": {"gitVersion": "v1.37.1"}, "serverVersion": {"gitVersion": "v1.36.2"}}
    discovery = of(tmp_path, {"api/version.json": version}).discovery()

    assert isinstance(discovery, Seen)
    assert discovery.value.version == "v1.36.2"


def test_secrets_are_never_kept(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"x": "c2VjcmV0"}}
    manifest, files = import_recording(
        record(tmp_path / "s", {"objects.json": objects(secrets=[secret], mixed=[secret, POD])})
    )

    assert "cluster/secrets.json" not in files
    assert "secrets" not in manifest.asked.api
    assert not [path for path, content in files.items() if b"c2VjcmV0" in content]


def test_what_no_one_reads_is_pruned_and_said_so(tmp_path: Path) -> None:
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    images = [{"names": [f"example.org/app:{number}"]} for number in range(60)]
    node = {
        **NODE,
        "metadata": {**NODE["metadata"], "managedFields": [{}], "annotations": {applied: "{}", "a": "b"}},  # type: ignore[dict-item]  # JSON
        "status": {"images": [*images, {"names": ["nvcr.io/nvidia/k8s-device-plugin:v0.20.0"]}]},
    }
    bundle = of(tmp_path, {"objects.json": objects(nodes=[node])})
    (kept_node,) = kept(bundle, "nodes")

    assert bundle.manifest.pruned == ("metadata.annotations." + applied, "metadata.managedFields", "status.images")
    assert kept_node["metadata"]["annotations"] == {"a": "b"}
    assert kept_node["status"]["images"] == [{"names": ["nvcr.io/nvidia/k8s-device-plugin:v0.20.0"]}]


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "A", "x" * 100])
def test_a_name_that_leads_out_of_the_bundle_is_no_kind(tmp_path: Path, name: str) -> None:
    manifest, files = import_recording(record(tmp_path / "s", {"objects.json": {**objects(), name: {"items": []}}}))

    assert [path for path in files if path.startswith("cluster/")] == [
        "cluster/nodes.json",
        "cluster/pods.json",
        "cluster/discovery.json",
    ]
    assert [one.evidence for one in manifest.missing] == ["api"]


# --- logs ----------------------------------------------------------------------------------------------


def test_a_log_finds_its_pods_namespace(tmp_path: Path) -> None:
    bundle = of(tmp_path, {"logs/p_c.log": "now\n", "logs/p_c.previous.log": "then\n", "logs/ns_q_d.log": "named\n"})

    assert bundle.log("gpu", "p", "c") == Seen("now\n")
    assert bundle.log("gpu", "p", "c", previous=True) == Seen("then\n")
    assert bundle.log("ns", "q", "d") == Seen("named\n")
    assert bundle.manifest.asked.logs == ("gpu/p/c", "gpu/p/c/previous", "ns/q/d")


def test_a_log_of_a_pod_that_is_gone_is_kept_apart(tmp_path: Path) -> None:
    bundle = of(tmp_path, {"logs/gone_c.log": "text\n", "logs/odd.log": "text\n"})

    assert bundle.manifest.asked.logs == ()
    assert bundle.store.read("extra/logs/gone_c.log") == b"text\n"
    assert bundle.store.read("extra/logs/odd.log") == b"text\n"


def test_of_two_pods_of_one_name_the_one_with_that_container_has_the_log(tmp_path: Path) -> None:
    other = {**POD, "metadata": {"name": "p", "namespace": "other"}, "spec": {"containers": [{"name": "x"}]}}
    bundle = of(tmp_path, {"objects.json": objects(pods=[other, POD]), "logs/p_c.log": "text\n"})

    assert bundle.log("gpu", "p", "c") == Seen("text\n")


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("Error from server (BadRequest): ", 'container "c" in pod "p" is waiting to start: image cannot be pulled'),
        ("Error from server (BadRequest): ", 'previous terminated container "c" in pod "p" not found'),
        ("Error from server (NotFound): ", 'pods "p" not found'),
        ("Error from server: ", "no preferred addresses found"),
        ("", "unable to retrieve container logs for containerd://5aa4"),
        ('Defaulted container "c" out of: c, d\nError from server (NotFound): ', 'pods "p" not found'),
        ("", 'failed to try resolving symlinks in path "/var/log/pods/x": lstat /var/log/pods/x: no such file'),
    ],
)
def test_what_kubectl_says_instead_of_a_log_is_missing(tmp_path: Path, prefix: str, text: str) -> None:
    bundle = of(tmp_path, {"logs/p_c.log": f"\n{prefix}{text}\n"})

    assert bundle.log("gpu", "p", "c") == Missing(MissingKind.ERROR, text, "logs/gpu/p/c")


@pytest.mark.parametrize(
    "text",
    ["", "Error: x\n", "error: no GPU\n", "I1 Error from server (NotFound): x\n", "a\n" * 9 + "unable to retrieve"],
)
def test_a_log_that_tells_of_errors_is_a_log(tmp_path: Path, text: str) -> None:
    assert of(tmp_path, {"logs/p_c.log": text}).log("gpu", "p", "c") == Seen(text)


def test_a_service_has_its_log_on_the_node(tmp_path: Path) -> None:
    files = {
        "logs/host-kubelet.log": "I1 started\n",
        "logs/host-containerd.log": "No journal files were opened due to insufficient permissions.\n",
    }
    bundle = of(tmp_path, files)

    assert bundle.node_log("n1", "kubelet") == Seen("I1 started\n")
    lost = bundle.node_log("n1", "containerd")
    assert isinstance(lost, Missing)
    assert lost.kind is MissingKind.FORBIDDEN


# --- the host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"\xff\xfe\xfd" * 10])
@pytest.mark.parametrize(
    ("dump", "key"),
    [
        ("pci-all.txt", "list:/sys/bus/pci/devices"),
        ("proc-modules-nvidia.txt", "file:/proc/modules"),
        ("proc-devices-nvidia.txt", "file:/proc/devices"),
        ("dev-nvidia.txt", "list:/dev"),
        ("bin.txt", "list:/usr/bin"),
        ("dmesg-nvidia.txt", "exec:dmesg"),
        ("dirs.txt", "list:/etc/cdi"),
        ("versions.txt", "exec:nvidia-ctk --version"),
        ("nvml.json", "nvml:nvmlInit_v2"),
        ("os-release.txt", "file:/etc/os-release"),
        ("crictl-info.json", "exec:crictl info"),
        ("containerd-config-dump.toml", "exec:containerd config dump"),
        ("kubelet_internal_checkpoint", "file:/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint"),
    ],
)
def test_a_dump_that_is_empty_or_no_text_was_asked_for_and_is_unparsable(
    tmp_path: Path, dump: str, key: str, content: bytes
) -> None:
    bundle = of(tmp_path, {f"host/{dump}": content})

    reading = bundle.host_read("n1", key)

    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.UNPARSABLE
    assert bundle.store.read(f"extra/host/{dump}") == content


def test_a_function_of_which_one_dump_is_cut_short_comes_from_the_other(tmp_path: Path) -> None:
    files = {
        "host/pci-all.txt": "0000:00:00.0\n0000:00:06.0\n",
        "host/pci-all-ids.txt": "0000:00:00.0 0x8086 0x0d57 0x060000\n0000:00:07.0 0x10de 0x2335 0x030200 nvidia\n",
        "host/pci-10de.txt": "",
    }
    host = Host(of(tmp_path, files), "n1")

    listing = host.listing("/sys/bus/pci/devices")

    assert isinstance(listing, Seen)
    assert listing.value is not None
    assert [entry.name for entry in listing.value.entries] == ["0000:00:00.0", "0000:00:06.0", "0000:00:07.0"]
    for key in ("0000:00:06.0/vendor", "0000:00:07.0/current_link_width"):
        lost = host.file(f"/sys/bus/pci/devices/{key}")
        assert isinstance(lost, Missing)
        assert lost.kind is MissingKind.UNPARSABLE


def test_getters_of_a_damaged_sweep_were_asked_for(tmp_path: Path) -> None:
    files = {"host/pci-all-ids.txt": "0000:00:07.0 0x10de 0x2335 0x030200 nvidia\n", "host/nvml.json": '{"nvmlIn'}
    reading = Host(of(tmp_path, files), "n1").nvml("nvmlDeviceGetUUID(0)")

    assert isinstance(reading, Missing)
    assert reading.kind is MissingKind.ERROR


def test_configuration_of_other_distributions_finds_its_place(tmp_path: Path) -> None:
    files = {
        "host/var-lib-rancher-rke2-agent-etc-containerd/config.toml": "version = 2\n",
        "host/var-lib-rancher-rke2-agent-etc-containerd/conf.d/99.toml": "version = 2\n",
        "host/etc-crio/crio.conf.d/99-nvidia.toml": "[crio]\n",
        "host/var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\n",
        "host/rke2/anything.txt": "text\n",
    }
    bundle = of(tmp_path, files)
    host = Host(bundle, "n1")
    containerd = "/var/lib/rancher/rke2/agent/etc/containerd"

    assert host.file(f"{containerd}/config.toml") == Seen("version = 2\n")
    assert host.entry(f"{containerd}/conf.d") == Seen(Entry("conf.d", "dir"))
    assert host.entry(f"{containerd}/config.toml.tmpl") == Seen(None)
    assert host.file("/etc/crio/crio.conf.d/99-nvidia.toml") == Seen("[crio]\n")
    assert host.entry("/etc/crio/crio.conf.d/10-other.toml") == Seen(None)
    assert host.file("/var/lib/kubelet/config.yaml") == Seen("kind: KubeletConfiguration\n")
    assert isinstance(host.entry("/var/lib/kubelet/pki"), Missing)
    assert bundle.store.read("extra/host/rke2/anything.txt") == b"text\n"


def test_of_several_nodes_uname_names_the_one(tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2.example"}}
    files = {
        "objects.json": objects(nodes=[NODE, other]),
        "host/uname.txt": "Linux n2 6.18.44 #1 SMP x86_64 GNU/Linux\n",
        "logs/host-kubelet.log": "text\n",
    }
    bundle = of(tmp_path, files)

    assert bundle.hosts == ("n2.example",)
    assert bundle.node_log("n2.example", "kubelet") == Seen("text\n")
    assert bundle.host_boot_id("n2.example") is None


def test_of_several_nodes_none_of_them_named_nothing_is_guessed(tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}
    bundle = of(tmp_path, {"objects.json": objects(nodes=[NODE, other]), "host/os-release.txt": "ID=ubuntu\n"})

    assert bundle.hosts == ()
    assert [(one.evidence, one.kind) for one in bundle.manifest.missing] == [("host", MissingKind.ERROR)]
    assert bundle.store.read("extra/host/os-release.txt") == b"ID=ubuntu\n"


def test_each_node_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}
    files = {
        "objects.json": objects(nodes=[NODE, other]),
        "host/n1/os-release.txt": "ID=ubuntu\n",
        "host/n2/os-release.txt": "ID=debian\n",
        "host/n2/which.txt": "/usr/bin/nvidia-smi\n",
        "logs/host-n2-kubelet.log": "text\n",
    }
    bundle = of(tmp_path, files)

    assert Host(bundle, "n1").file("/etc/os-release") == Seen("ID=ubuntu\n")
    assert Host(bundle, "n2").file("/etc/os-release") == Seen("ID=debian\n")
    assert bundle.node_log("n2", "kubelet") == Seen("text\n")
    assert bundle.manifest.missing == ()


def test_an_error_of_the_engine_beside_its_answer_is_kept(tmp_path: Path) -> None:
    files = {"host/containerd-config-dump.toml": "version = 2\n", "host/containerd-config-dump.err": "warning\n"}
    bundle = of(tmp_path, files)

    answer = Host(bundle, "n1").command("containerd config dump")

    assert isinstance(answer, Seen)
    assert answer.value is not None
    assert answer.value.status == 0
    assert bundle.store.read("extra/host/containerd-config-dump.err") == b"warning\n"


# --- the run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "moment"),
    [
        ({"summary.json": {"recorded_at": "2026-11-24T00:13:31Z"}}, "2026-11-24T00:13:31"),
        ({"nvidia-smi-q.txt": "Timestamp   : Mon Nov  9 23:44:59 2026\n"}, "2026-11-09T23:44:59"),
        (
            {"objects.json": objects(leases=[{"spec": {"renewTime": "2026-11-24T00:13:30.123456Z"}}, {"spec": 7}])},
            "2026-11-24T00:13:30.123456",
        ),
        ({"objects.json": objects(events=[{"lastTimestamp": "2026-11-24T00:13:29Z"}, 7])}, "2026-11-24T00:13:29"),
        ({"summary.json": "nonsense"}, "2001-09-09T01:46:40"),
    ],
)
def test_the_clock_is_the_recordings(tmp_path: Path, files: dict[str, Any], moment: str) -> None:
    folder = record(tmp_path / "state", {"objects.json": objects(), **files})
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1e9, 1e9))

    assert imported(folder).gathered_at == datetime.datetime.fromisoformat(f"{moment}+00:00")


def test_a_recording_says_where_it_comes_from_and_claims_nothing(tmp_path: Path) -> None:
    manifest, _ = import_recording(record(tmp_path / "odd name", {"objects.json": objects()}))

    assert manifest.run.source == "the recording odd name"
    assert manifest.provenance == "recorded"
    assert (manifest.not_real, manifest.modelled_on) == ((), None)


def test_importing_twice_gives_the_same_bundle(tmp_path: Path) -> None:
    folder = record(
        tmp_path / "s", {"objects.json": objects(), "summary.json": {"recorded_at": "2026-11-24T00:13:31Z"}}
    )

    assert import_recording(folder) == import_recording(folder)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = record(tmp_path / "s", {"objects.json": objects()})
    (tmp_path / "outside").write_text("outside")
    (folder / "host").mkdir()
    (folder / "host" / "os-release.txt").symlink_to(tmp_path / "outside")

    manifest, files = import_recording(folder)

    assert [one.evidence for one in manifest.missing] == ["extra/host/os-release.txt"]
    assert not [path for path, content in files.items() if b"outside" in content]


# --- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b'{"nodes": {"items": [', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "a list where an object"),
        (b"null", "nothing where an object"),
        (b"{}", "no member of it is a list"),
        (b'{"nodes": 7}', "no member of it is a list"),
        (b'{"nodes": {"items": NaN}}', "not JSON"),
        (b'{"secrets": {"items": []}}', "no member of it is a list"),
        (b"[" * 200_000, "nested deeper"),
    ],
)
def test_objects_that_cannot_be_read_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    folder = record(tmp_path / "state", {"objects.json": content})

    assert recognise(folder)
    with pytest.raises(BundleError, match=words) as raised:
        import_recording(folder)
    assert str(folder / "objects.json") in str(raised.value)


def test_a_folder_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "state", {"README.md": "text", "host/readme.txt": "text"})

    assert not recognise(folder)
    with pytest.raises(BundleError, match="no recording"):
        import_recording(folder)


def test_an_empty_folder_and_none_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")

    for name, words in (("empty", "no recording"), ("file", "no such folder"), ("nothing", "no such folder")):
        assert not recognise(tmp_path / name)
        with pytest.raises(BundleError, match=words):
            import_recording(tmp_path / name)


# --- credentials ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer [redacted]"),
        ("--token=abc123 --verbose", "--token=[redacted] --verbose"),
        ("DB_PASSWORD=hunter2;x", "DB_PASSWORD=[redacted];x"),
        ("https://user:pa55@registry.example/v2/", "https://user:[redacted]@registry.example/v2/"),
        ('{"client_secret": "abcdefgh"}', '{"client_secret": "[redacted]"}'),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[redacted]"),
        ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl", "[redacted]"),
        ("nvapi-0123456789abcdefghij", "[redacted]"),
    ],
)
def test_a_credential_is_replaced(text: str, clean: str) -> None:
    redactor = Redactor()

    assert redactor.content("log", text.encode()) == clean.encode()
    assert redactor.counts() == {"log": "1 credential"}


@pytest.mark.parametrize(
    "text",
    [
        "automountServiceAccountToken: true",
        "secretName: webhook-tls",
        '"expirationSeconds": 3607, "path": "token"',
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "http://10.0.0.10:8080/metrics",
        "GPU-b8937736-7a82-9ccb-a2ed-aa52863b565f",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert Redactor().content("log", text.encode()) == text.encode()


def test_credentials_of_a_pod_are_replaced_and_counted(tmp_path: Path) -> None:
    container = {
        "name": "c",
        "env": [
            {"name": "NGC_API_KEY", "value": "abc"},
            {"name": "TOKEN_FILE", "value": "/var/run/token"},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
        ],
        "args": ["--token", "abc", "--password=def", "--name", "x"],
    }
    pod = {**POD, "metadata": {**POD["metadata"], "annotations": {"a": "Bearer abcdefghijklmnop"}}}  # type: ignore[dict-item]  # JSON
    bundle = of(tmp_path, {"objects.json": objects(pods=[{**pod, "spec": {"containers": [container]}}])})
    (clean,) = kept(bundle, "pods")

    assert clean["spec"]["containers"][0]["env"] == [
        {"name": "NGC_API_KEY", "value": "[redacted]"},
        {"name": "TOKEN_FILE", "value": "/var/run/token"},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
    ]
    assert clean["spec"]["containers"][0]["args"] == ["--token", "[redacted]", "--password=[redacted]", "--name", "x"]
    assert clean["metadata"]["annotations"] == {"a": "Bearer [redacted]"}
    assert bundle.manifest.redacted == {"cluster/pods.json": "4 credentials"}


@pytest.mark.parametrize(
    "text", ["token" * 200_000, "eyJ" * 300_000, "a-" * 500_000, "-----BEGIN PRIVATE KEY-----" * 20_000]
)
def test_a_huge_text_is_looked_through_in_linear_time(text: str) -> None:
    assert len(Redactor().content("log", text.encode())) > 0
