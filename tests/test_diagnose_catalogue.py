"""The catalogue of causes, looked at as a whole: what its entries may say, and how look-alikes are told apart."""

import re
import time
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import suite
from kube_gpucheck.diagnose import Catalogue, facts, load_catalogue
from kube_gpucheck.diagnose.catalogue import Cause, Sign
from kube_gpucheck.diagnose.context import COMPONENTS, UNITS
from kube_gpucheck.errors import GpucheckError
from kube_gpucheck.evidence.engine import Distribution
from kube_gpucheck.judging import IDENTIFIER
from kube_gpucheck.model import Outcome

FOLDER: Final = Path(load_catalogue.__code__.co_filename).parent.parent / "causes"
TEXTS: Final = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))}
CATALOGUE: Final = load_catalogue(TEXTS)
IDS: Final = frozenset(
    line
    for line in (Path(__file__).parent / "data" / "cause_ids.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
SMALLEST: Final = """
- id: some-cause
  title: t
  layer: driver
  claims: [DRV-003]
  remedy: {default: [do]}
  proves: DRV-003
"""
EXPRESSIONS: Final = sorted(
    {
        sign.re
        for cause in CATALOGUE.causes
        for one in (*cause.needs, *cause.against, *cause.hints)
        for leaf in one.leaves
        for sign in (leaf.log, leaf.event)
        if sign is not None
    }
)
LOOK_ALIKES: Final = (
    ("dra-gpu-resources-disabled", "resourceclaim-matches-no-device"),
    ("two-imex-domains-in-one-clique", "host-imex-beside-compute-domain"),
    ("driver-not-installed", "nouveau-holds-gpu"),
    ("driver-not-installed", "driver-userspace-missing"),
    ("reboot-pending-after-driver-install", "driver-not-installed"),
    ("reboot-pending-after-driver-install", "nouveau-holds-gpu"),
    ("reboot-pending-after-driver-install", "driver-library-version-mismatch"),
    ("secure-boot-rejects-module", "selinux-denies-module-load"),
    ("kernel-headers-missing-for-dkms", "dkms-stale-tree-blocks-build"),
    ("kernel-headers-missing-for-dkms", "driver-not-installed"),
    ("kernel-module-not-loaded", "nouveau-holds-gpu"),
    ("kernel-module-not-loaded", "secure-boot-rejects-module"),
    ("kernel-module-not-loaded", "driver-not-installed"),
    ("driver-library-version-mismatch", "driver-packages-from-mixed-repositories"),
    ("device-nodes-missing", "kernel-module-not-loaded"),
    ("gpu-fails-to-initialise", "vm-mmio-window-too-small"),
    ("gpu-fails-to-initialise", "gpu-fell-off-bus"),
    ("gpu-fails-to-initialise", "proprietary-module-on-open-only-gpu"),
    ("gsp-firmware-timeout", "gpu-fell-off-bus"),
    ("device-marked-unhealthy-by-xid", "gpu-fell-off-bus"),
    ("row-remap-pending", "row-remap-failed"),
    ("uncorrectable-ecc-error", "row-remap-failed"),
    ("uncorrectable-ecc-error", "gpu-fell-off-bus"),
    ("pcie-link-degraded", "gpu-fell-off-bus"),
    ("nvlink-fabric-error", "fabric-manager-not-running"),
    ("fabric-manager-not-running", "fabric-manager-version-mismatch"),
    ("fabric-manager-not-running", "fabric-incomplete-gpu-missing"),
    ("fabric-manager-not-running", "nvlink5-fabric-ib-modules-missing"),
    ("fabric-manager-not-running", "uvm-hmm-kaslr-conflict"),
    ("fabric-manager-version-mismatch", "fabric-incomplete-gpu-missing"),
    ("fabric-manager-version-mismatch", "nvlink5-fabric-ib-modules-missing"),
    ("toolkit-not-installed", "toolkit-installed-in-part"),
    ("toolkit-not-installed", "nvidia-handler-not-configured"),
    ("toolkit-not-installed", "runtime-binary-missing"),
    ("nvidia-handler-not-configured", "distribution-restart-needed-after-toolkit"),
    ("nvidia-handler-not-configured", "runtime-configured-but-not-reloaded"),
    ("nvidia-handler-not-configured", "runtime-dropin-not-imported"),
    ("nvidia-handler-not-configured", "containerd-import-replaces-cri-section"),
    ("nvidia-handler-not-configured", "wrong-container-engine-configured"),
    ("distribution-restart-needed-after-toolkit", "runtime-configured-but-not-reloaded"),
    ("distribution-restart-needed-after-toolkit", "distribution-overwrites-containerd-config"),
    ("runtime-dropin-not-imported", "containerd-import-replaces-cri-section"),
    ("runtime-binary-missing", "default-runtime-left-behind"),
    ("container-engine-not-running", "cri-plugin-not-loaded"),
    ("node-not-ready", "container-engine-not-running"),
    ("driver-libraries-not-in-search-path", "driver-userspace-missing"),
    ("driver-libraries-not-in-search-path", "driver-not-installed"),
    ("cdi-spec-missing", "cdi-spec-stale"),
    ("cdi-spec-missing", "cdi-spec-dir-not-read-by-engine"),
    ("cdi-spec-missing", "cdi-jit-generation-failed"),
    ("cdi-spec-missing", "cdi-management-kind-has-only-all"),
    ("cdi-spec-stale", "cdi-hook-path-wrong"),
    ("runtimeclass-missing", "runtimeclass-names-unknown-handler"),
    ("device-plugin-outside-nvidia-runtime", "driver-not-installed"),
    ("device-plugin-outside-nvidia-runtime", "toolkit-not-installed"),
    ("component-started-before-driver", "device-plugin-outside-nvidia-runtime"),
    ("component-started-before-driver", "visible-devices-hides-all-gpus"),
    ("dcgm-exporter-outside-nvidia-runtime", "managed-driver-dir-not-mounted"),
    ("dcgm-exporter-outside-nvidia-runtime", "dcgm-exporter-memory-limit-too-low"),
    ("exporter-on-nodes-without-gpu", "dcgm-exporter-outside-nvidia-runtime"),
    ("nfd-label-missing", "nfd-label-format-differs"),
    ("nfd-label-missing", "operand-deploy-label-not-true"),
    ("nfd-label-missing", "node-has-no-nvidia-gpu"),
    ("nfd-worker-does-not-tolerate-taint", "nfd-label-missing"),
    ("nfd-rbac-missing", "nfd-crd-missing"),
    ("gpu-stack-does-not-tolerate-node-taint", "nfd-label-missing"),
    ("gfd-labels-stale", "gpu-labels-left-after-uninstall"),
    ("device-plugin-stopped-serving", "device-plugin-not-installed"),
    ("device-plugin-stopped-serving", "device-marked-unhealthy-by-xid"),
    ("device-plugin-not-installed", "operator-ready-with-nothing-deployed"),
    ("stale-extended-resource", "two-device-plugins-on-one-node"),
    ("stale-extended-resource", "device-plugin-not-installed"),
    ("kubelet-keeps-stale-device-allocation", "pod-handled-before-plugin-registered"),
    ("pod-handled-before-plugin-registered", "device-marked-unhealthy-by-xid"),
    ("shared-gpu-request-above-one", "kubelet-keeps-stale-device-allocation"),
    ("all-gpus-in-use", "request-exceeds-any-node"),
    ("all-gpus-in-use", "resource-name-not-served"),
    ("request-exceeds-any-node", "resource-name-not-served"),
    ("resource-name-not-served", "shared-resource-renamed"),
    ("pod-does-not-tolerate-gpu-taint", "gpu-stack-does-not-tolerate-node-taint"),
    ("pod-selector-matches-no-gpu-node", "pod-does-not-tolerate-gpu-taint"),
    ("gpu-quota-exhausted", "quota-key-without-requests-prefix"),
    ("admission-policy-forbids-privileged-pods", "priority-class-quota-blocks-daemonset"),
    ("device-plugin-config-invalid", "sharing-keys-in-wrong-section"),
    ("device-plugin-config-invalid", "mps-control-daemon-not-deployed"),
    ("sharing-config-not-read-by-plugin", "sharing-keys-in-wrong-section"),
    ("mig-strategy-single-on-mixed-layout", "mig-enabled-without-instances"),
    ("mig-mode-pending-needs-reboot", "mig-change-blocked-by-gpu-client"),
    ("mig-mode-pending-needs-reboot", "mig-layout-not-in-configuration"),
    ("mig-change-blocked-by-gpu-client", "mig-layout-not-in-configuration"),
    ("node-not-ready", "mig-manager-restarts-kubelet"),
    ("operand-deploy-label-not-true", "mig-manager-left-operands-paused"),
    ("driver-modules-in-use-cannot-unload", "driver-eviction-disabled-by-upgrade-policy"),
    ("image-needs-newer-driver", "image-needs-newer-gpu-architecture"),
    ("image-needs-newer-driver", "workload-outside-nvidia-runtime"),
    ("device-cgroup-lost-after-daemon-reload", "toolkit-no-cgroups-set"),
    ("selinux-blocks-device-access", "mig-monitor-capability-missing"),
    ("orphan-process-holds-gpu-memory", "gpu-visible-by-environment-variable"),
)
"""Pairs that the reference of causes sets apart, each id first whose entry has the sign against the other."""
IMPLIED: Final = {
    ("driver-not-installed", "nouveau-holds-gpu"),
    ("reboot-pending-after-driver-install", "nouveau-holds-gpu"),
    ("reboot-pending-after-driver-install", "driver-library-version-mismatch"),
    ("toolkit-not-installed", "runtime-binary-missing"),
}
"""Pairs of which one has against it what the other's signs imply, in other words: a fact in place of a text."""
EXCLUSIVE: Final = (
    {"driver_is_nowhere_on_disk", "driver_module_is_on_disk"},
    {"driver_is_nowhere_on_disk", "driver_module_is_only_there_for_another_kernel"},
    {"driver_is_nowhere_on_disk", "nvidia_module_is_loaded"},
    {"driver_is_nowhere_on_disk", "module_is_idle_on_disk"},
    {"module_is_idle_on_disk", "nvidia_module_is_loaded"},
    {"driver_module_predates_the_boot", "driver_module_is_newer_than_the_boot"},
    {"toolkit_is_not_installed", "toolkit_is_installed"},
    {"handler_is_not_in_files", "handler_is_in_files"},
    {"handler_is_in_files", "drop_in_is_not_imported"},
    {"toolkit_was_there_before", "handler_program_is_absent"},
    {"nvidia_module_is_loaded", "nvidia_module_is_not_loaded"},
    {"gfd_is_installed", "gfd_is_not_installed"},
    {"loaded_module_and_libraries_differ", "nouveau_is_loaded"},
    {"mps_is_configured", "compute_mode_is_not_default"},
)
"""Facts that never hold together: what one cause needs keeps a cause that needs the other away."""
SLOW_INPUTS: Final = ("a" * 200_000, " " * 200_000, "nvidia.com/" * 20_000, "/" * 200_000, "1" * 200_000)


def test_every_id_is_one_of_the_binding_ids() -> None:
    assert set(CATALOGUE.by_id) <= IDS


def test_every_file_is_called_after_the_layer_of_its_causes() -> None:
    for name, text in TEXTS.items():
        assert {cause.position.value for cause in load_catalogue({name: text}).causes} == {name.removesuffix(".yaml")}


def test_every_cause_claims_checks_that_are_there_and_names_one_that_proves_the_cure() -> None:
    built = {check.info.id for check in suite.all_checks()}
    for cause in CATALOGUE.causes:
        assert all(IDENTIFIER.fullmatch(one) for one in (*cause.claims, cause.proves)), cause.id
        assert built & set(cause.claims), cause.id
        assert len(set(cause.claims)) == len(cause.claims), cause.id


def test_every_cause_needs_a_sign() -> None:
    assert [cause.id for cause in CATALOGUE.causes if not cause.needs] == []


def test_every_fact_that_is_named_is_registered_and_every_registered_fact_is_named() -> None:
    named = {leaf.fact for _, leaf in _leaves() if leaf.fact is not None}
    assert named == facts.names()


def test_every_fact_says_in_a_line_what_it_means() -> None:
    assert [name for name in sorted(facts.names()) if not facts.describe(name).endswith(".")] == []


def test_every_log_sign_names_a_component_that_has_logs() -> None:
    known = {*COMPONENTS, *UNITS, "pod"}
    assert {leaf.log.component for _, leaf in _leaves() if leaf.log is not None} <= known


def test_every_event_sign_with_a_component_names_one_that_has_pods() -> None:
    assert {leaf.event.component for _, leaf in _leaves() if leaf.event is not None} <= {*COMPONENTS, ""}


def test_every_finding_sign_names_an_outcome() -> None:
    for cause, leaf in _leaves():
        if leaf.finding is not None:
            assert IDENTIFIER.fullmatch(leaf.finding.check), cause.id
            assert leaf.finding.outcome in {one.value for one in Outcome}, cause.id


def test_weights_are_from_one_to_three() -> None:
    assert {sign.weight for cause in CATALOGUE.causes for sign in cause.hints} <= {1, 2, 3}


def test_no_cause_has_a_sign_both_for_and_against_it() -> None:
    for cause in CATALOGUE.causes:
        speaking_for = {str(leaf) for sign in (*cause.needs, *cause.hints) for leaf in sign.leaves}
        assert not speaking_for & {str(leaf) for sign in cause.against for leaf in sign.leaves}, cause.id


def test_remedies_are_for_distributions_that_are_known() -> None:
    known = {one.value for one in Distribution} | {"default"}
    for cause in CATALOGUE.causes:
        assert set(cause.remedy) <= known, cause.id
        assert all(steps and all(step.strip() for step in steps) for steps in cause.remedy.values()), cause.id


def test_references_are_addresses() -> None:
    assert all(one.startswith("https://") for cause in CATALOGUE.causes for one in cause.references)


def test_recordings_in_which_a_cause_was_seen_are_there() -> None:
    there = {*suite.LIBRARY.bundles(), *suite.LIBRARY.scenarios()}
    seen = {name for cause in CATALOGUE.causes for name in cause.seen_in}
    assert {name for name in seen if name.startswith("recorded/")} <= there
    assert all(name.startswith(("recorded/", "tutorial/")) for name in seen)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_take_linear_time(expression: str) -> None:
    _verify_linear(expression)
    pattern = re.compile(expression, re.IGNORECASE | re.MULTILINE)
    before = time.process_time()
    for text in SLOW_INPUTS:
        pattern.search(text)
    assert time.process_time() - before < 5


@pytest.mark.parametrize("expression", [r"(a+)+b", r"(?:a*b*)*c", r"(a)\1", r"(?=a)b", r"(?:x{2,})+y"])
def test_expressions_that_may_not_take_linear_time_are_found(expression: str) -> None:
    with pytest.raises(AssertionError):
        _verify_linear(expression)


@pytest.mark.parametrize(("one", "other"), LOOK_ALIKES)
def test_look_alikes_are_told_apart(one: str, other: str) -> None:
    first, second = CATALOGUE.by_id[one], CATALOGUE.by_id[other]
    assert _opposes(first, second) or _opposes(second, first) or (one, other) in IMPLIED


def test_the_graph_of_what_explains_what_has_no_circle() -> None:
    graph = {check.info.id: set(check.info.after) for check in suite.all_checks()}
    assert tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id: some-cause": "id: [1]"}, "id"),
        ({"layer: driver": "layer: driver\n  needs: [{}]"}, "0 kinds"),
        ({"layer: driver": "layer: driver\n  needs: [{fact: a, log: {component: pod, re: x}}]"}, "2 kinds"),
        ({"layer: driver": "layer: driver\n  needs: [{any: [{fact: a, finding: {check: DRV-003}}]}]"}, "2 kinds"),
        ({"layer: driver": "layer: driver\n  needs: [{log: {component: pod, re: '('}}]"}, "missing )"),
        ({"{default: [do]}": "{rke2: [do]}"}, "remedy.default"),
        ({"proves:": "proof:"}, "proof"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_file_and_field(change: Mapping[str, str], complaint: str) -> None:
    text = SMALLEST
    for old, new in change.items():
        text = text.replace(old, new)
    with pytest.raises(GpucheckError, match=re.escape(complaint)) as refused:
        load_catalogue({"driver.yaml": text.encode()})
    assert "causes/driver.yaml" in str(refused.value)


def test_an_id_that_is_used_twice_is_refused() -> None:
    with pytest.raises(GpucheckError, match="used twice"):
        load_catalogue({"a.yaml": SMALLEST.encode(), "b.yaml": SMALLEST.encode()})


def test_a_distribution_without_steps_of_its_own_gets_the_default_ones() -> None:
    cause = Catalogue(load_catalogue({"driver.yaml": SMALLEST.encode()}).causes).by_check["DRV-003"][0]
    assert cause.steps("rke2") == cause.steps("plain") == ("do",)


def _leaves() -> Iterator[tuple[Cause, Sign]]:
    for cause in CATALOGUE.causes:
        for sign in (*cause.needs, *cause.against, *cause.hints):
            for leaf in sign.leaves:
                yield cause, leaf


def _opposes(cause: Cause, other: Cause) -> bool:
    """Tell whether a sign that one needs stands against the other, or excludes one that the other needs."""
    against = {leaf for sign in cause.against for leaf in sign.leaves}
    needed = {leaf for sign in other.needs for leaf in sign.leaves}
    if {_words(one) for one in against} & {_words(one) for one in needed} or _overlap(against, needed):
        return True
    return _excludes(cause, other)


def _excludes(cause: Cause, other: Cause) -> bool:
    mine = {leaf.fact for sign in cause.needs if sign.any is None for leaf in sign.leaves if leaf.fact}
    theirs = {leaf.fact for sign in other.needs if sign.any is None for leaf in sign.leaves if leaf.fact}
    return any({one, two} in EXCLUSIVE for one in mine for two in theirs)


def _words(sign: Sign) -> str:
    return str(sign)


def _overlap(against: set[Sign], needed: set[Sign]) -> bool:
    """Tell whether an expression against one is a part of an expression that the other needs, or the reverse."""
    left = {_expression(one) for one in against} - {""}
    right = {_expression(one) for one in needed} - {""}
    return any(a in b or b in a or set(a.split("|")) & set(b.split("|")) for a in left for b in right)


def _expression(sign: Sign) -> str:
    return sign.log.re if sign.log is not None else sign.event.re if sign.event is not None else ""


def _verify_linear(expression: str) -> None:
    """Refuse look-around, references, and an unbounded repetition inside another one.

    Read from the text: brackets and escapes are taken out first, so that what is left are groups and quantifiers.
    """
    assert not re.search(r"\\[1-9]|\(\?P=|\(\?<?[=!]|\(\?\(", expression), expression
    bare = re.sub(r"\\.", "x", expression)
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "x", bare)
    depth: list[bool] = [False]
    place = 0
    while place < len(bare):
        found = _UNBOUNDED.match(bare, place)
        if bare[place] == "(":
            depth.append(False)
        elif bare[place] == ")":
            repeats = depth.pop()
            again = _UNBOUNDED.match(bare, place + 1)
            assert not (repeats and again), expression
            depth[-1] = depth[-1] or repeats or again is not None
        elif found is not None and found.end() > place:
            depth[-1] = True
        place += 1


_UNBOUNDED: Final = re.compile(r"[*+]|\{\d*,\}")
