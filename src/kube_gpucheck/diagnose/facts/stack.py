"""Predicates about the GPU stack's DaemonSets and pods: discovery, device plugin, sharing, telemetry, operator."""

from collections.abc import Callable, Iterable
from typing import Final

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import any_node, asked, fact, one_of
from kube_gpucheck.evidence import Component, DaemonSet, Node, Pod
from kube_gpucheck.evidence.coverage import servers
from kube_gpucheck.evidence.delivery import gives_driver
from kube_gpucheck.evidence.discovery import DISCOVERY_LABEL, PCI_LABEL
from kube_gpucheck.evidence.partition import PAUSED_FOR_MIG
from kube_gpucheck.evidence.podspec import hides_all
from kube_gpucheck.evidence.podstate import is_running, live_pods, refused_creation, unpulled
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.runtime import class_is_nvidia
from kube_gpucheck.model import Missing, MissingKind, Seen

_DEVICE_PLUGINS: Final = (Component.DEVICE_PLUGIN, Component.PROVIDER_DEVICE_PLUGIN)
_NFD_LABEL: Final = "feature.node.kubernetes.io/pci-10de.present"
_DEPLOY: Final = "nvidia.com/gpu.deploy."
_KILLED: Final = "OOMKilled"


def _daemonsets(context: Context, *components: Component) -> tuple[DaemonSet, ...]:
    """Return the DaemonSets of these components that the subject concerns: itself, else all of the cluster."""
    return tuple(one for one in context.daemonsets if one.component in components)


# --- who runs where --------------------------------------------------------------------------------


@fact
def plugin_runs_outside_nvidia_runtime(context: Context) -> bool:
    """The device plugin's template asks for nothing that would give it the driver, and the default runtime does not."""
    return one_of(_daemonsets(context, Component.DEVICE_PLUGIN), lambda one: _is_outside(context, one))


@fact
def plugin_is_given_the_driver(context: Context) -> bool:
    """The device plugin's template asks for the driver, or the default runtime gives it."""
    found = _daemonsets(context, Component.DEVICE_PLUGIN)
    return bool(found) and not one_of(found, lambda one: _is_outside(context, one))


@fact
def gfd_runs_outside_nvidia_runtime(context: Context) -> bool:
    """GPU Feature Discovery's template asks for nothing that would give it the driver, nor does the default runtime."""
    return one_of(_daemonsets(context, Component.GFD), lambda one: _is_outside(context, one))


@fact
def exporter_runs_outside_nvidia_runtime(context: Context) -> bool:
    """dcgm-exporter's template asks for nothing that would give it the driver, and the default runtime does not."""
    return one_of(_daemonsets(context, Component.DCGM_EXPORTER), lambda one: _is_outside(context, one))


def _is_outside(context: Context, daemonset: DaemonSet) -> bool:
    """Tell whether a DaemonSet's pods run under plain runc.

    A default runtime that nobody looked at is taken for runc, as every engine ships it: the causes that ask need
    the program's own word beside it.
    """
    nodes = tuple(node for node in context.nodes if need(daemonset.selects(node)) is None) or context.nodes
    if nodes and not any(need(node.deliveries.by_handler) for node in nodes):
        return False
    name = need(daemonset.object).spec.template.spec.runtime_class_name
    if name is not None:
        return need(class_is_nvidia(context.cluster, name, nodes)) is False
    if need(gives_driver(daemonset)):
        return False
    return one_of(nodes, lambda node: not _default_is_nvidia(node)) or not nodes


def _default_is_nvidia(node: Node) -> bool:
    reading = node.runtime.default_is_nvidia
    if isinstance(reading, Missing) and reading.kind is MissingKind.NOT_ASKED:
        return False
    return need(reading)


@fact
def a_component_is_told_to_see_no_gpu(context: Context) -> bool:
    """A DaemonSet that needs the driver sets NVIDIA_VISIBLE_DEVICES to none, void or nothing."""

    def told(daemonset: DaemonSet) -> bool:
        if daemonset.component is None or not daemonset.component.needs_driver:
            return False
        return hides_all(need(daemonset.object).spec.template.spec) is not None

    return one_of(context.daemonsets, told)


@fact
def an_image_of_the_stack_cannot_be_pulled(context: Context) -> bool:
    """A pod of a DaemonSet of the GPU stack waits for an image that cannot be pulled."""

    def waits(daemonset: DaemonSet) -> bool:
        return any(need(unpulled(pod)) is not None for pod in context.pods_of(daemonset) if _lives(pod))

    return one_of(context.daemonsets, waits)


def _lives(pod: Pod) -> bool:
    return not need(pod.is_finished) and not need(pod.is_leaving)


@fact
def stack_does_not_tolerate_a_taint(context: Context) -> bool:
    """A taint keeps a DaemonSet of the GPU stack off a node that it selects."""
    return any_node(
        context,
        lambda node: one_of(
            (one for one in context.daemonsets if one.component is not None and one.component.belongs_on_gpu_nodes),
            lambda one: _rule(one, node) == "taint",
        ),
    )


def _rule(daemonset: DaemonSet, node: Node) -> str | None:
    found = need(daemonset.rejection(node))
    return None if found is None else found.rule


# --- discovery -------------------------------------------------------------------------------------


@fact
def a_selected_feature_label_is_missing(context: Context) -> bool:
    """A DaemonSet that belongs on GPU nodes selects by a label of feature discovery that the node does not have."""
    nodes = context.nodes or need(context.cluster.nodes)
    wanted = [one for one in context.daemonsets if one.component is not None and one.component.belongs_on_gpu_nodes]
    return one_of(nodes, lambda node: one_of(wanted, lambda one: _lacks_a_label(one, node)))


def _lacks_a_label(daemonset: DaemonSet, node: Node) -> bool:
    found = need(daemonset.selects(node))
    return found is not None and any(
        DISCOVERY_LABEL.fullmatch(key) and not key.startswith(_DEPLOY) for key in found.keys
    )


@fact
def nfd_is_not_installed(context: Context) -> bool:
    """No Node Feature Discovery worker is installed."""
    return not need(context.cluster.stack.nfd_workers)


@fact
def nfd_workers_are_ready(context: Context) -> bool:
    """Node Feature Discovery's workers run, on the node that it concerns where there is one, and are Ready."""
    places = {node.name for node in context.nodes}
    pods = [
        pod
        for one in need(context.cluster.stack.nfd_workers)
        for pod in need(live_pods(one))
        if not places or pod.node_name in places
    ]
    return bool(pods) and not one_of(pods, lambda pod: not need(pod.is_ready))


@fact
def nfd_label_is_of_another_form(context: Context) -> bool:
    """Node Feature Discovery labelled NVIDIA's PCI function, in another form than vendor alone."""

    def other(node: Node) -> bool:
        labels = need(node.labels)
        return _NFD_LABEL not in labels and any(PCI_LABEL.fullmatch(key) for key in labels)

    return any_node(context, other)


@fact
def nfd_worker_is_kept_away_by_a_taint(context: Context) -> bool:
    """A taint of the node keeps Node Feature Discovery's worker off it."""
    return any_node(
        context, lambda node: one_of(need(context.cluster.stack.nfd_workers), lambda one: _rule(one, node) == "taint")
    )


@fact
def the_api_forbids_node_features(context: Context) -> bool:
    """The API server forbade a publisher to write its NodeFeature object."""
    return any(not one.is_absent for one in need(context.cluster.features.refusals))


@fact
def node_features_are_not_served(context: Context) -> bool:
    """NodeFeature objects are published, and the API server does not serve them."""
    discovery = context.cluster.features
    return bool(need(discovery.publishers)) and need(discovery.node_features) is None


@fact
def nfd_master_was_killed_for_memory(context: Context) -> bool:
    """A container of Node Feature Discovery's master was killed for memory."""
    return _was_killed(_pods_of(context, Component.NFD_MASTER))


@fact
def operator_was_killed_for_memory(context: Context) -> bool:
    """A container of the GPU Operator was killed for memory."""
    return _was_killed(_pods_of(context, Component.OPERATOR))


@fact
def exporter_was_killed_for_memory(context: Context) -> bool:
    """A container of dcgm-exporter was killed for memory."""
    return _was_killed(pod for one in _daemonsets(context, Component.DCGM_EXPORTER) for pod in context.pods_of(one))


def _pods_of(context: Context, component: Component) -> Iterable[Pod]:
    return need(context.cluster.pods_by_component).get(component, ())


def _was_killed(pods: Iterable[Pod]) -> bool:
    return any(
        state.terminated is not None and state.terminated.reason == _KILLED
        for pod in pods
        if not need(pod.outline).is_silent  # nothing of it ever ended
        for status in need(pod.statuses)
        for state in (status.state, status.last_state)
    )


@fact
def gfd_is_installed(context: Context) -> bool:
    """GPU Feature Discovery is installed."""
    return bool(need(context.cluster.stack.feature_discoveries))


@fact
def gfd_is_not_installed(context: Context) -> bool:
    """GPU Feature Discovery is not installed."""
    return not need(context.cluster.stack.feature_discoveries)


# --- the device plugin -----------------------------------------------------------------------------


@fact
def no_device_plugin_is_installed(context: Context) -> bool:
    """Nothing that could serve GPUs is installed: no device plugin, no DRA driver."""
    return not need(servers(context.cluster))


@fact
def gpu_capacity_is_left_over(context: Context) -> bool:
    """The node lists a GPU resource of which nothing is allocatable."""
    return any_node(
        context,
        lambda node: any(count and not need(node.allocatable).get(name) for name, count in need(node.capacity).items()),
    )


@fact
def a_resource_is_left_over_beside_a_served_one(context: Context) -> bool:
    """The node lists a GPU resource that its device plugin does not serve, beside one that it serves."""

    def left_over(node: Node) -> bool:
        served = need(node.plugin.serving).resources
        return bool(served) and any(count and name not in served for name, count in need(node.capacity).items())

    return any_node(context, left_over)


@fact
def two_device_plugins_run_on_the_node(context: Context) -> bool:
    """Two device plugins on one node serve, or mean to serve, the same resource."""
    return any_node(context, lambda node: bool(need(node.plugin.contested)))


@fact
def plugin_finds_no_kubelet_socket(context: Context) -> bool:
    """The device plugin's log says that the kubelet's socket is not where it looks."""
    return any_node(context, lambda node: any(log.socket is not None for _, log in need(node.plugin.logs)))


@fact
def plugin_waits_for_devices(context: Context) -> bool:
    """The device plugin found no device and waits for ever."""
    return any_node(context, lambda node: any(log.waits for _, log in need(node.plugin.logs)))


@fact
def plugin_offers_fewer_gpus_than_there_are(context: Context) -> bool:
    """The device plugin serves, under its configuration, fewer GPUs than the node has."""

    def fewer(node: Node) -> bool:
        served = need(node.plugin.serving).resources
        sharing = need(node.plugin.config).sharing
        capacity = need(node.capacity)
        for name, count in need(node.plugin.expected).items():
            shared = sharing.offering(name)
            replicas = shared.replicas if shared else 1
            offered = capacity.get(name, 0)
            if name in served and 0 < offered < count and offered % replicas == 0:
                return True
        return False

    return any_node(context, fewer)


@fact
def plugin_marked_a_device_unhealthy(context: Context) -> bool:
    """The device plugin's log says that it took a device out of service."""
    return any_node(context, lambda node: any(log.unhealthy for _, log in need(node.plugin.logs)))


@fact
def kubelet_lost_the_plugin_that_runs(context: Context) -> bool:
    """The device plugin runs and registered, nothing that it serves is allocatable, and it took no device away."""
    return any_node(context, lambda node: need(node.plugin.is_forgotten))


@fact
def plugin_left_and_blames_nothing(context: Context) -> bool:
    """The node lists GPUs of which none is allocatable, and nothing says why the device plugin no longer serves them.

    It may run on the node, and has no pod there (none was refused), or one whose log blames nothing (it was killed).
    """

    def left(node: Node) -> bool:
        if all(need(node.allocatable).get(name) for name, count in need(node.capacity).items() if count):
            return False
        if need(node.plugin.serving).resources:
            return False
        wanted = [one for one in need(context.cluster.stack.device_plugins) if need(one.rejection(node)) is None]
        if not wanted or one_of(wanted, lambda one: asked(refused_creation(one)) is not None):
            return False
        return all(_blames_nothing(node, pod) for pod in need(node.plugin.pods))

    return any_node(context, left)


def _blames_nothing(node: Node, pod: Pod) -> bool:
    if not need(is_running(pod)) and not any(
        (one.state.terminated or one.last_state.terminated) is not None for one in need(pod.statuses)
    ):
        return False
    log = need(node.plugin.log(pod))
    return log.problem is None and not log.waits


@fact
def plugin_config_is_unusable(context: Context) -> bool:
    """The configuration that the device plugin is given is not there, or does not parse."""
    return any_node(
        context,
        lambda node: (
            (found := need(node.plugin.requested)) is not None and found.problem is not None and found.is_given
        ),
    )


@fact
def plugin_is_given_no_config_to_choose_from(context: Context) -> bool:
    """The node's label asks for a configuration by name, and the device plugin is given none to choose from."""
    return any_node(context, lambda node: (found := need(node.plugin.requested)) is not None and not found.is_given)


@fact
def plugin_config_has_misplaced_keys(context: Context) -> bool:
    """The configuration has sharing keys in sections where the device plugin does not read them."""
    return any_node(
        context,
        lambda node: (found := need(node.plugin.requested)) is not None and bool(found.config.misplaced),
    )


@fact
def mps_is_configured(context: Context) -> bool:
    """The device plugin's effective configuration shares by MPS."""
    return any_node(context, lambda node: need(node.plugin.config).sharing.strategy == "mps")


@fact
def mps_daemon_is_not_on_the_node(context: Context) -> bool:
    """The device plugin is to share by MPS, and no MPS control daemon has a pod on the node."""

    def lacks(node: Node) -> bool:
        if need(node.plugin.config).sharing.strategy != "mps":
            return False
        return not any(need(pod.component) is Component.MPS_CONTROL_DAEMON for pod in need(node.pods))

    return any_node(context, lacks)


@fact
def mps_daemon_does_not_serve(context: Context) -> bool:
    """The device plugin is to share by MPS, and the MPS control daemon on the node says that it does not."""
    return any_node(context, lambda node: need(node.mps.is_wanted) and need(node.mps.failure) is not None)


@fact
def mps_is_to_share_gpus_with_mig(context: Context) -> bool:
    """The device plugin is to share by MPS GPUs that have MIG on."""
    return any_node(context, lambda node: need(node.mps.is_wanted) and bool(need(node.mps.partitioned)))


@fact
def mig_layout_asked_for_is_not_defined(context: Context) -> bool:
    """The MIG manager's configuration does not have the layout that the node's label asks for."""
    return any_node(context, lambda node: need(node.partitions.undefined) is not None)


@fact
def node_fell_silent_while_mig_was_changed(context: Context) -> bool:
    """The node is not Ready in the middle of a change of MIG, by a MIG manager that was told to stop the kubelet."""

    def silent(node: Node) -> bool:
        conditions = need(node.object).status.conditions
        if not any(one.type == "Ready" and one.status != "True" for one in conditions):
            return False
        return need(node.partitions.state) == "pending" and need(node.partitions.stops_the_kubelet)

    return any_node(context, silent)


@fact
def mig_manager_is_at_work(context: Context) -> bool:
    """The MIG manager is changing the layout, and has written a line of it in the last half hour."""
    return any_node(context, lambda node: need(node.partitions.is_at_work))


@fact
def mig_devices_of_several_kinds_under_strategy_single(context: Context) -> bool:
    """The MIG strategy is single, and NVML lists several profiles, or GPUs with MIG on beside some without."""

    def several(node: Node) -> bool:
        if need(node.partitions.strategy) != "single":
            return False
        layouts = need(node.partitions.layouts)
        on = [one for one in layouts if one.is_on]
        kinds = {profile for one in on for profile in one.profiles}
        return all(one.profiles for one in on) and (len(kinds) > 1 or 0 < len(on) < len(layouts))

    return any_node(context, several)


@fact
def mig_devices_offered_are_not_those_of_the_driver(context: Context) -> bool:
    """The MIG devices that the node's resources or labels tell of are others than NVML lists."""
    return any_node(context, lambda node: bool(need(node.partitions.is_used) and need(node.partitions.differences)))


@fact
def operands_are_paused_for_mig_and_no_change_is_under_way(context: Context) -> bool:
    """Labels of operands are paused for a change of MIG that is not under way."""

    def left(node: Node) -> bool:
        paused = [one for one in need(node.partitions.paused) if one.endswith(PAUSED_FOR_MIG)]
        return bool(paused) and need(node.partitions.change_under_way) is None

    return any_node(context, left)


# --- telemetry -------------------------------------------------------------------------------------


@fact
def no_exporter_is_installed(context: Context) -> bool:
    """No DaemonSet of dcgm-exporter is installed."""
    return not need(context.cluster.stack.exporters)


@fact
def an_exporter_is_installed(context: Context) -> bool:
    """The DaemonSet is dcgm-exporter; for any other subject: one is installed."""
    return bool(_daemonsets(context, Component.DCGM_EXPORTER))


@fact
def exporter_is_wanted_off_gpu_nodes(context: Context) -> bool:
    """dcgm-exporter may run on a node without any sign of a GPU."""
    nodes = [node for node in need(context.cluster.nodes) if isinstance(node.object, Seen)]
    return one_of(
        _daemonsets(context, Component.DCGM_EXPORTER),
        lambda one: one_of(nodes, lambda node: need(one.rejection(node)) is None and not need(node.gpu_signs)),
    )


@fact
def exporter_listens_without_a_colon(context: Context) -> bool:
    """DCGM_EXPORTER_LISTEN is a port without its colon."""
    test: Callable[[DaemonSet], bool] = lambda one: any(  # noqa: E731  a predicate, as its neighbours are
        variable.name == "DCGM_EXPORTER_LISTEN" and (variable.value or "").isdecimal()
        for variable in need(one.main_container).env or ()
    )
    return one_of(_daemonsets(context, Component.DCGM_EXPORTER), test)
