"""The predicates of the catalogue, on bundles that show what they are about."""

from collections.abc import Iterator

import pytest

import suite
from kube_gpucheck.diagnose import facts
from kube_gpucheck.diagnose.catalogue import Catalogue
from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.journal import Journal
from kube_gpucheck.diagnose.judgements import Judgements
from kube_gpucheck.diagnose.relations import Relations
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.model import THE_CLUSTER, Missing, MissingKind, Reading, Seen, Subject, SubjectKind

NODE = Subject(SubjectKind.NODE, "gpu-node-0", node="gpu-node-0")
STAGE = Subject(SubjectKind.NODE, "dxlab-nb-00", node="dxlab-nb-00")
GPU = Subject(SubjectKind.GPU, "0000:00:06.0", node="gpu-node-0")
PLUGIN = Subject(SubjectKind.DAEMONSET, "nvidia-device-plugin", namespace="nvidia-device-plugin")
GFD = Subject(SubjectKind.DAEMONSET, "nvidia-device-plugin-gpu-feature-discovery", namespace="nvidia-device-plugin")
HEALTHY = "recorded/healthy"
NO_SIGNS = Journal(Catalogue(()))


def pod(name: str, node: str | None = None) -> Subject:
    return Subject(SubjectKind.POD, name, namespace="default", node=node)


@pytest.mark.parametrize(
    ("fact", "bundle", "subject"),
    [
        ("nouveau_is_loaded", "tutorial/00-bare", STAGE),
        ("driver_is_nowhere_on_disk", "tutorial/00-bare", STAGE),
        ("driver_module_is_newer_than_the_boot", "tutorial/01-driver-no-reboot", STAGE),
        ("driver_module_is_on_disk", "tutorial/01-driver-no-reboot", STAGE),
        ("nvidia_module_is_loaded", HEALTHY, NODE),
        ("loaded_module_and_libraries_differ", "recorded/driver-library-version-mismatch", NODE),
        ("nvml_says_version_mismatch", "recorded/driver-library-version-mismatch", NODE),
        ("xids_are_those_of_applications", "recorded/xid-application-faults", GPU),
        ("toolkit_is_not_installed", "tutorial/02-driver", STAGE),
        ("toolkit_is_installed", "tutorial/03-toolkit-no-restart", STAGE),
        ("toolkit_is_newer_than_the_engine_start", "tutorial/03-toolkit-no-restart", STAGE),
        ("distribution_detects_nvidia_at_its_start", "tutorial/03-toolkit-no-restart", STAGE),
        ("handler_is_not_in_files", "tutorial/03-toolkit-no-restart", STAGE),
        ("handler_is_in_files", "tutorial/04-toolkit", STAGE),
        ("running_engine_lacks_the_handler", "recorded/containerd-not-restarted", NODE),
        ("handler_program_is_absent", "recorded/runtime-binary-missing", NODE),
        ("toolkit_is_installed_in_part", "recorded/legacy-mode-no-nvidia-container-cli", NODE),
        ("engine_is_down", "recorded/containerd-down", NODE),
        ("node_is_not_ready", "recorded/containerd-down", NODE),
        ("no_spec_defines_the_kind_asked_for", "recorded/cdi-spec-missing", NODE),
        ("cdi_spec_names_what_is_not_there", "recorded/cdi-spec-stale-devnode", NODE),
        ("no_runtime_class_leads_to_nvidia", "recorded/no-runtimeclass", THE_CLUSTER),
        ("runtime_class_names_an_unknown_handler", "recorded/wrong-runtimeclass-handler", THE_CLUSTER),
        ("another_nvidia_handler_is_configured", "recorded/wrong-runtimeclass-handler", THE_CLUSTER),
        ("plugin_runs_outside_nvidia_runtime", "recorded/plugin-without-runtime", PLUGIN),
        ("gfd_runs_outside_nvidia_runtime", "recorded/plugin-without-runtime", GFD),
        ("plugin_waits_for_devices", "recorded/plugin-without-runtime-noexit", NODE),
        ("an_image_of_the_stack_cannot_be_pulled", "recorded/plugin-image-pull-fails", PLUGIN),
        ("a_selected_feature_label_is_missing", "recorded/before-label", NODE),
        ("nfd_is_not_installed", "recorded/before-label", NODE),
        ("node_features_are_not_served", "recorded/gfd-without-nfd-crd", THE_CLUSTER),
        ("no_device_plugin_is_installed", "recorded/plugin-removed-capacity-zero", THE_CLUSTER),
        ("gpu_capacity_is_left_over", "recorded/plugin-removed-capacity-zero", NODE),
        ("a_resource_is_left_over_beside_a_served_one", "recorded/mig-strategy-mixed-no-mig", NODE),
        ("pod_waits_for_gpus_that_others_hold", "recorded/gpu-exhausted", pod("gpu-waiter")),
        ("pod_asks_for_more_than_any_node_has", "recorded/gpu-exhausted", pod("gpu-wants-8")),
        ("pod_asks_for_a_name_that_no_node_serves", "recorded/gpu-exhausted", pod("wrong-resource-name")),
        ("some_gpu_resource_is_served", "recorded/gpu-exhausted", pod("wrong-resource-name")),
        ("the_node_with_the_gpus_is_excluded_by_a_taint", "recorded/tainted-no-toleration", pod("no-toleration")),
        ("no_exporter_is_installed", HEALTHY, THE_CLUSTER),
        ("an_exporter_is_installed", "tutorial/11-exporter-crashloop", THE_CLUSTER),
        ("exporter_runs_outside_nvidia_runtime", "tutorial/11-exporter-crashloop", THE_CLUSTER),
    ],
)
def test_it_holds_where_it_should(fact: str, bundle: str, subject: Subject) -> None:
    assert ask(fact, bundle, subject) == Seen(value=True)


@pytest.mark.parametrize(
    ("fact", "bundle", "subject"),
    [
        ("nouveau_is_loaded", HEALTHY, NODE),
        ("driver_is_nowhere_on_disk", HEALTHY, NODE),
        ("loaded_module_and_libraries_differ", HEALTHY, NODE),
        ("device_nodes_are_missing", HEALTHY, NODE),
        ("nvml_says_a_gpu_is_lost", HEALTHY, GPU),
        ("xid_says_fallen_off_the_bus", "recorded/xid-application-faults", GPU),
        ("toolkit_is_not_installed", HEALTHY, NODE),
        ("handler_is_not_in_files", HEALTHY, NODE),
        ("running_engine_lacks_the_handler", HEALTHY, NODE),
        ("engine_is_down", HEALTHY, NODE),
        ("plugin_runs_outside_nvidia_runtime", HEALTHY, PLUGIN),
        ("plugin_runs_outside_nvidia_runtime", "recorded/plugin-without-runtime", GFD),
        ("pod_asks_for_more_than_any_node_has", "recorded/gpu-exhausted", pod("gpu-waiter")),
        ("pod_asks_for_a_name_that_no_node_serves", "recorded/gpu-exhausted", pod("gpu-wants-8")),
        ("runtime_class_names_an_unknown_handler", HEALTHY, THE_CLUSTER),
        ("an_exporter_is_installed", "tutorial/11-exporter-crashloop", PLUGIN),
    ],
)
def test_it_does_not_hold_where_it_should_not(fact: str, bundle: str, subject: Subject) -> None:
    assert ask(fact, bundle, subject) == Seen(value=False)


def test_what_was_not_read_is_not_known() -> None:
    answer = ask("nouveau_is_loaded", "recorded/plugin-image-pull-fails", NODE)
    assert isinstance(answer, Missing)
    assert answer.kind is MissingKind.NOT_ASKED


def test_a_gpu_of_the_node_that_has_no_xid_is_not_blamed_for_another_ones() -> None:
    other = Subject(SubjectKind.GPU, "0000:00:07.0", node="gpu-node-0")
    assert ask("xids_are_those_of_applications", "recorded/xid-application-faults", other) == Seen(value=False)


@pytest.mark.parametrize(
    "bundle",
    [
        HEALTHY,
        "recorded/bare-host",
        "recorded/containerd-down",
        "recorded/no-runtimeclass",
        "recorded/gpu-exhausted",
        "recorded/plugin-without-runtime",
        "tutorial/00-bare",
        "tutorial/11-exporter-crashloop",
    ],
)
def test_every_fact_answers_for_every_subject(bundle: str) -> None:
    context = contexts(bundle)
    for subject in subjects(context.cluster):
        here = Context(subject, context.cluster, context.judgements, NO_SIGNS)
        for name in facts.names():
            answer = facts.ask(name, here)
            assert isinstance(answer, Missing) or answer.value in {True, False}, (name, subject)


def subjects(cluster: Cluster) -> Iterator[Subject]:
    yield THE_CLUSTER
    for views in (cluster.nodes, cluster.daemonsets, cluster.readable_pods):
        if isinstance(views, Seen):
            yield from (view.subject for view in views.value)
    for node in cluster.nodes.value if isinstance(cluster.nodes, Seen) else ():
        if isinstance(node.gpus, Seen):
            yield from (gpu.subject for gpu in node.gpus.value)


def contexts(bundle: str) -> Context:
    cluster = Cluster(suite.LIBRARY.build(bundle))
    return Context(THE_CLUSTER, cluster, Judgements((), Relations(cluster)), NO_SIGNS)


def ask(fact: str, bundle: str, subject: Subject) -> Reading[bool]:
    context = contexts(bundle)
    return facts.ask(fact, Context(subject, context.cluster, context.judgements, NO_SIGNS))
