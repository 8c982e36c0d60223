"""The device-plugin layer's evidence: logs, configurations, checkpoints, and what may be concluded from them."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

import suite
from kube_gpucheck.evidence import Cluster, Node
from kube_gpucheck.evidence.allocation import Checkpoint, Fit, parse_checkpoint, placement
from kube_gpucheck.evidence.deviceplugin import Serving
from kube_gpucheck.evidence.kubeletroot import kubelet_root_of
from kube_gpucheck.evidence.pluginlog import PluginLog, Unhealthy, brief, complaint, parse_log
from kube_gpucheck.evidence.sharing import (
    ConfigError,
    PluginConfig,
    Replication,
    Sharing,
    choose_entry,
    parse_config,
    parse_printed,
    sharing_in,
)
from kube_gpucheck.model import Missing, MissingKind, Seen

LOG = """I1124 00:13:19.717390       1 main.go:269] "Starting NVIDIA Device Plugin" version=<
I1124 00:13:19.717751       1 main.go:294] Starting Plugins.
I1124 00:13:19.718612       1 main.go:388]
Running with config:
{
  "version": "v1",
  "flags": {"migStrategy": "none", "failOnInitError": true, "plugin": {"deviceListStrategy": ["envvar"]}},
  "resources": {"gpus": [{"pattern": "*", "name": "nvidia.com/gpu"}]},
  "sharing": {"timeSlicing": {}}
}
I1124 00:13:19.737655       1 plugin-manager.go:101] Detected platform: nvml
I1124 00:13:19.749721       1 server.go:142] Starting to serve 'nvidia.com/gpu' on /x/nvidia-gpu.sock
I1124 00:13:19.751216       1 server.go:149] Registered device plugin for 'nvidia.com/gpu' with Kubelet
"""
SHARED = """version: v1
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
    - name: nvidia.com/gpu
      replicas: 4
"""


def log_of(text: str) -> PluginLog:
    reading = parse_log(text, "log")
    assert isinstance(reading, Seen)
    return reading.value


def node_of(name: str) -> Node:
    nodes = Cluster(suite.LIBRARY.build(name)).nodes
    assert isinstance(nodes, Seen)
    return nodes.value[0]


# --- the plugin's log ------------------------------------------------------------------------------


def test_a_healthy_log_proves_registration_and_configuration() -> None:
    config = PluginConfig(
        "none", fail_on_init_error=True, device_list_strategies=("envvar",), names=(("*", "nvidia.com/gpu"),)
    )
    assert log_of(LOG) == PluginLog(
        has_start=True,
        registered=("nvidia.com/gpu",),
        registered_when="I1124 00:13:19",
        platform="nvml",
        config=Seen(config),
    )


def test_only_what_follows_the_last_start_counts() -> None:
    assert log_of(LOG + "I1124 00:20:00.000000       1 main.go:294] Starting Plugins.\n").registered == ()


def test_a_resource_that_is_no_longer_served_is_not_registered() -> None:
    stopped = "I1124 00:20:00.000000       1 server.go:167] Stopping to serve 'nvidia.com/gpu' on /x/nvidia-gpu.sock\n"
    assert log_of(LOG + stopped).registered == ()


def test_a_log_without_its_head_proves_no_start() -> None:
    assert log_of("I1124 00:13:19.752783       1 health.go:64] Ignoring the following XIDs\n").has_start is False


@pytest.mark.parametrize(
    ("line", "resource"),
    [
        ("2023/01/27 08:20:31 Registered device plugin for 'nvidia.com/gpu' with Kubelet", "nvidia.com/gpu"),
        ("2019/01/27 08:20:31 Registered device plugin with Kubelet", "nvidia.com/gpu"),
        ("I0127 08:20:31.1 1 manager.go:400] device-plugin registered with the kubelet", "nvidia.com/gpu"),
        ("Registered device plugin for 'nvidia.com/mig-1g.5gb' with Kubelet", "nvidia.com/mig-1g.5gb"),
    ],
)
def test_registration_is_recognised_in_old_and_other_plugins(line: str, resource: str) -> None:
    assert log_of(line).registered == (resource,)


def test_a_plugin_that_found_no_device_waits() -> None:
    found = log_of(
        "I1124 00:12:58.278528       1 main.go:294] Starting Plugins.\n"
        "E1124 00:12:58.279267       1 factory.go:99] Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND.\n"
        "I1124 00:12:58.279287       1 main.go:416] No devices found. Waiting indefinitely.\n"
    )
    assert (found.waits, found.no_library, found.registered) == (True, True, ())


def test_a_device_lost_to_an_xid_is_named_with_it() -> None:
    found = log_of(
        "XidCriticalError: Xid=79 on Device=GPU-1; marking device as unhealthy.\n"
        "'nvidia.com/gpu' device marked unhealthy: GPU-1\n'nvidia.com/gpu' device marked unhealthy: GPU-2\n"
    )
    assert found.unhealthy == (Unhealthy("GPU-1", 79), Unhealthy("GPU-2"))


def test_a_log_that_could_not_be_retrieved_is_missing() -> None:
    text = "unable to retrieve container logs for containerd://54247c69"
    assert parse_log(text, "log") == Missing(MissingKind.ERROR, text, "log")


def test_a_configuration_that_is_cut_off_is_unparsable_and_the_rest_is_not() -> None:
    found = log_of(LOG[: LOG.index('"resources"')])
    assert found.has_start
    assert isinstance(found.config, Missing)
    assert found.config.kind is MissingKind.UNPARSABLE


@pytest.mark.parametrize("text", ["", "\n", "\x00\xff", "Running with config:", "Running with config:\n[]"])
def test_a_text_that_is_no_log_proves_nothing(text: str) -> None:
    found = log_of(text)
    assert (found.registered, found.config) == ((), Seen(None))


def test_a_huge_log_is_read_in_linear_time() -> None:
    began = time.perf_counter()
    log_of("Registered device plugin for '" * 100_000 + "\n" + "x" * 3_000_000 + "\n" + LOG)
    log_of("Running with config:\n{" * 20_000)
    assert time.perf_counter() - began < 5


def test_a_complaint_is_the_line_that_ended_the_program() -> None:
    text = (
        "E1124 00:12:40.988914       1 factory.go:99] Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND.\n"
        "E1124 00:12:40.988932       1 factory.go:103] If this is not a GPU node, you should set up a toleration\n"
        "E1124 00:12:41.002499       1 main.go:198] error starting plugins: nvml init failed\n"
    )
    assert complaint(text) == "error starting plugins: nvml init failed"


@pytest.mark.parametrize(
    "line",
    [
        "I1124 00:13:19.751216       1 server.go:149] all is well",
        'E1124 00:13:19.751216       1 kernel.go:121] "failed to read kconfig" err="no such file or directory"',
        'E1124 00:13:19.751216       1 cpu.go:10] "failed to detect cstate" err="open /host-sys: no such file"',
        'time="2026-11-24T00:13:13Z" level=fatal msg="Assertion failure: selected configuration not currently applied"',
        "W1124 00:13:19.751216       1 main.go:228] Failed to remove .ready file: remove /mps/.ready: no such file",
    ],
)
def test_nobody_complains_in_a_healthy_log(line: str) -> None:
    assert complaint(line + "\n") is None


def test_a_long_text_keeps_head_and_end() -> None:
    text = brief("a" * 500 + " the origin", 60)
    assert len(text) == 60
    assert text.startswith("aaaa")
    assert text.endswith("the origin")


# --- the configuration -----------------------------------------------------------------------------


def test_time_slicing_is_read_with_its_new_name() -> None:
    shared = Sharing(
        "time-slicing", (Replication("nvidia.com/gpu", "nvidia.com/gpu.shared", 4),), refuses_above_one=True
    )
    assert parse_config(SHARED).sharing == shared


def test_mps_refuses_requests_above_one_unless_it_is_told_otherwise() -> None:
    text = "sharing: {mps: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}"
    assert parse_config(text).sharing.refuses_above_one
    assert not parse_config(
        text.replace("{mps: {", "{mps: {failRequestsGreaterThanOne: false, ")
    ).sharing.refuses_above_one


@pytest.mark.parametrize("text", ["", "version: v1", "# nothing", "version: v1\nsharing:\n  timeSlicing: {}"])
def test_a_configuration_may_say_nothing(text: str) -> None:
    assert parse_config(text) == PluginConfig()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: v2", "version is 'v2'"),
        ("a: [", "not YAML"),
        ("- a list", "the configuration is"),
        ("sharing: yes", "sharing is 'True'"),
        ("sharing: {timeSlicing: {resources: []}}", "has no resources"),
        ("sharing: {timeSlicing: {resources: [{replicas: 2}]}}", "has no name"),
        ("sharing: {timeSlicing: {resources: [{name: gpu}]}}", "no number of replicas"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 1}]}}", "at least 2"),
        ("sharing: {timeSlicing: {renameByDefault: 7, resources: [{name: gpu, replicas: 2}]}}", "true or false"),
        ("flags: {migStrategy: many}", "none, single, mixed"),
        ("resources: {gpus: [{name: gpu}]}", "lacks its pattern"),
        ("[" * 5000, "not YAML"),
        ("x" * 1_200_000, "at most 1 MiB"),
    ],
)
def test_a_configuration_that_the_plugin_refuses_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_config(text)


def test_sharing_keys_outside_their_section_are_found() -> None:
    text = "flags: {renameByDefault: true}\nsharing: {replicas: 4}\ntimeSlicing: {}"
    assert parse_config(text).misplaced == (
        "timeSlicing in the top level",
        "renameByDefault in flags",
        "replicas in sharing",
    )


def test_what_is_printed_is_read_from_its_place() -> None:
    assert parse_printed('text {"version": "v1"} more', 4) == PluginConfig()
    assert parse_printed("no object", 2) is None


def test_a_node_offers_each_device_times_its_replicas() -> None:
    config = parse_config(SHARED)
    assert config.offered({"nvidia.com/gpu": 2, "nvidia.com/mig-1g.5gb": 7}) == {
        "nvidia.com/gpu.shared": 8,
        "nvidia.com/mig-1g.5gb": 7,
    }


def test_products_may_have_names_of_their_own() -> None:
    text = "resources: {gpus: [{pattern: '*H200*', name: h200}, {pattern: '*', name: nvidia.com/gpu}]}"
    config = parse_config(text)
    assert (config.one_name, config.resource_of("NVIDIA H200"), config.resource_of("NVIDIA L4")) == (
        None,
        "nvidia.com/h200",
        "nvidia.com/gpu",
    )


@pytest.mark.parametrize(
    ("entries", "label", "default", "fallbacks", "chosen"),
    [
        ("ab", "b", "a", (), ("b", "the node's label")),
        ("ab", None, "a", (), ("a", "DEFAULT_CONFIG")),
        (["x", "default"], None, None, ("named", "single"), ("default", "fallback 'named'")),
        ("a", None, None, ("named", "single"), ("a", "fallback 'single'")),
        ("ab", "", "", ("named", "single", "empty"), (None, "fallback 'empty'")),
    ],
)
def test_the_entry_is_chosen_as_config_manager_chooses(
    entries: str | list[str],
    label: str | None,
    default: str | None,
    fallbacks: tuple[str, ...],
    chosen: tuple[Any, str],
) -> None:
    assert choose_entry(entries, label=label, default=default, fallbacks=fallbacks) == chosen


@pytest.mark.parametrize(
    ("entries", "label", "default", "fallbacks"),
    [
        ("", None, None, ()),
        ("a", "z", None, ()),
        ("a", None, "z", ()),
        ("ab", None, None, ("single",)),
        ("a", None, None, ("?",)),
    ],
)
def test_no_entry_is_chosen_where_config_manager_ends_with_an_error(
    entries: str, label: str | None, default: str | None, fallbacks: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError):
        choose_entry(entries, label=label, default=default, fallbacks=fallbacks)


# --- the kubelet -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [{"-1": ["GPU-1", "GPU-2"]}, ["GPU-1", "GPU-2"]])
def test_a_checkpoint_is_read_in_its_new_and_its_old_form(ids: object) -> None:
    entry = {"PodUID": "u", "ContainerName": "c", "ResourceName": "nvidia.com/gpu", "DeviceIDs": ids, "AllocResp": ""}
    registered = {"nvidia.com/gpu": ["GPU-1", "GPU-2"], "nvidia.com/gpu.shared": None}
    text = msgspec.json.encode({"Data": {"PodDeviceEntries": [entry], "RegisteredDevices": registered}}).decode()
    found = parse_checkpoint(text)
    assert found.registered == {"nvidia.com/gpu": ("GPU-1", "GPU-2"), "nvidia.com/gpu.shared": ()}
    assert found.allocations[0].devices == ("GPU-1", "GPU-2")


def test_a_checkpoint_may_be_empty() -> None:
    assert parse_checkpoint('{"Data": {"PodDeviceEntries": null, "RegisteredDevices": null}}') == Checkpoint({}, ())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Data": 1}', '{"Data": {"PodDeviceEntries": [{}]}}', "\ud800"])
def test_a_checkpoint_that_is_damaged_is_refused(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        parse_checkpoint(text)


def test_the_kubelets_root_is_where_its_socket_is() -> None:
    assert node_of("recorded/healthy").kubelet.root == Seen("/var/lib/kubelet")
    assert node_of("checks/PLG-014-fault").kubelet.root == Seen("/var/lib/k0s/kubelet")


def test_the_kubelets_root_is_not_known_where_nobody_looked() -> None:
    root = node_of("recorded/bare-host").kubelet.root
    assert isinstance(root, Missing)
    assert root.kind is MissingKind.NOT_ASKED


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/var/lib/kubelet/device-plugins", "/var/lib/kubelet"),
        ("/var/lib/k0s/kubelet/pod-resources/", "/var/lib/k0s/kubelet"),
        (
            "/var/snap/microk8s/common/var/lib/kubelet/plugins/gpu.nvidia.com",
            "/var/snap/microk8s/common/var/lib/kubelet",
        ),
    ],
)
def test_a_host_path_implies_a_root(path: str, root: str) -> None:
    assert kubelet_root_of(path) == root


# --- what is concluded -----------------------------------------------------------------------------


def test_a_node_without_a_plugin_serves_nothing() -> None:
    assert node_of("recorded/plugin-removed-capacity-zero").plugin.serving == Seen(
        Serving((), "", "no device-plugin pod is on the node")
    )


def test_what_a_dead_plugin_registered_is_not_served_though_the_checkpoint_keeps_it() -> None:
    node = node_of("recorded/containerd-not-restarted")
    serving, checkpoint = node.plugin.serving, node.kubelet.checkpoint
    assert isinstance(serving, Seen)
    assert serving.value.resources == ()
    assert isinstance(checkpoint, Seen)
    assert checkpoint.value is not None
    assert checkpoint.value.registered["nvidia.com/gpu"]


def test_the_running_configuration_wins_over_the_one_that_is_asked_for() -> None:
    plugin = node_of("checks/SHR-009-fault").plugin
    config, requested = plugin.config, plugin.requested
    assert isinstance(config, Seen)
    assert isinstance(requested, Seen)
    assert requested.value is not None
    assert [one.sharing.resources[0].replicas for one in (config.value, requested.value.config)] == [4, 8]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recorded/healthy", {"nvidia.com/gpu": 1}),
        ("recorded/time-slicing-4", {"nvidia.com/gpu": 4}),
        ("recorded/mig-strategy-mixed-no-mig", {"nvidia.com/gpu": 1}),
        ("tutorial/07-discovery", {"nvidia.com/gpu": 1}),
    ],
)
def test_hardware_and_configuration_imply_what_a_node_offers(name: str, expected: Mapping[str, int]) -> None:
    assert node_of(name).plugin.expected == Seen(expected)


def test_a_leftover_is_not_offered() -> None:
    node = node_of("recorded/mig-strategy-mixed-no-mig")
    pods = Cluster(suite.LIBRARY.build("recorded/gpu-exhausted")).pods
    assert isinstance(pods, Seen)
    holder = next(pod for pod in pods.value if pod.name == "gpu-holder")
    assert isinstance(holder.outline, Seen)
    asks = {"nvidia.com/gpu.shared": 1}
    holder.outline = Seen(msgspec.structs.replace(holder.outline.value, gpu_request=asks))
    found = placement(holder, node)
    assert isinstance(found, Seen)
    assert (found.value.fit, found.value.reason) == (
        Fit.NOT_OFFERED,
        "gpu-node-0 serves nvidia.com/gpu, and its nvidia.com/gpu.shared is a leftover",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "replicas: 3",
        "version: v1\nsharing: {}\n",
        "sharing: [replicas",
        "version: v2\nsharing: {timeSlicing: {}}\n",
    ],
)
def test_a_text_that_shares_nothing_is_no_sharing_configuration(text: str) -> None:
    assert sharing_in(text) is None


def test_a_sharing_configuration_is_recognised_by_what_it_asks_for() -> None:
    assert sharing_in(SHARED) == parse_config(SHARED).sharing


def test_a_sharing_configuration_that_no_plugin_mounts_is_told_of() -> None:
    node = Cluster(suite.LIBRARY.build("mechanisms/sharing-config-not-read-by-plugin")).node_of("gpu-node-0")
    assert node is not None
    unread = node.plugin.unread
    assert isinstance(unread, Seen)
    assert unread.value is not None
    assert (unread.value.config_map, unread.value.entry, unread.value.is_meant) == (
        "nvidia-device-plugin/time-slicing-config",
        "any",
        True,
    )


def test_a_sharing_configuration_that_the_plugin_mounts_is_not_unread() -> None:
    node = Cluster(suite.LIBRARY.build("recorded/time-slicing-4")).node_of("gpu-node-0")
    assert node is not None
    assert node.plugin.unread == Seen(None)
