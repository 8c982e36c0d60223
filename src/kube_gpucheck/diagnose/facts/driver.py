"""Predicates about the driver of a node: module, libraries, device nodes, NVML, kernel log."""

import re
from collections.abc import Callable
from typing import Final

from kube_gpucheck.diagnose.context import Context
from kube_gpucheck.diagnose.facts.registry import all_nodes, any_node, asked, fact, one_of
from kube_gpucheck.evidence import Gpu, Node
from kube_gpucheck.evidence.driver import Obstacle
from kube_gpucheck.evidence.health import FabricState
from kube_gpucheck.evidence.kernel_log import NoticeKind, Xid, slot_of
from kube_gpucheck.evidence.libraries import WANTED, listed_library
from kube_gpucheck.evidence.modules import Flavour
from kube_gpucheck.evidence.pci import windows
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.evidence.services import FABRIC_MANAGER, IMEX
from kube_gpucheck.evidence.stack import Component
from kube_gpucheck.evidence.tables import xids
from kube_gpucheck.model import Missing, MissingKind, SubjectKind

_NO_LIBRARY: Final = re.compile(
    r"load library failed: libnvidia-ml\.so|failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND", re.IGNORECASE
)
_NOT_LOADED: Final = re.compile(
    r"nvml error: driver not loaded|failed to initialize NVML: Driver Not Loaded", re.IGNORECASE
)
"""What the toolkit says when it creates a container. Source: libnvidia-container, nvc.c; toolkit, pkg/nvcdi."""
_VERSION_MISMATCH: Final = 18
_GPU_IS_LOST: Final = 15
_NOT_READY: Final = 802
_MISMATCH: Final = 803
"""CUDA's codes: cudaErrorSystemNotReady, cudaErrorSystemDriverMismatch."""
_UNFINISHED: Final = frozenset({FabricState.NOT_STARTED, FabricState.IN_PROGRESS})
_FELL_OFF: Final = frozenset({79})
_GSP: Final = frozenset({119, 120})
_MEMORY: Final = frozenset({48, 63, 64, 94, 95, 140, 171, 172})
_NVLINK: Final = frozenset({74, *range(144, 151)})
"""XIDs by family. Source: NVIDIA, "XID Errors" (docs.nvidia.com/deploy/xid-errors)."""


@fact
def nouveau_is_loaded(context: Context) -> bool:
    """The nouveau module is loaded."""
    return any_node(context, lambda node: need(node.driver.nouveau_loaded))


@fact
def nvidia_module_is_loaded(context: Context) -> bool:
    """The nvidia module is loaded."""
    return any_node(context, lambda node: need(node.driver.nvidia_loaded))


@fact
def nvidia_module_is_not_loaded(context: Context) -> bool:
    """The nvidia module is not loaded."""
    return all_nodes(context, lambda node: not need(node.driver.nvidia_loaded))


@fact
def driver_module_is_on_disk(context: Context) -> bool:
    """An nvidia module for the running kernel is on disk."""
    return any_node(context, lambda node: need(node.driver.module_on_disk_for_running_kernel))


@fact
def driver_is_nowhere_on_disk(context: Context) -> bool:
    """No nvidia module, library or DKMS tree is on the node; where nobody looked, the toolkit finds no library in /."""
    return all_nodes(context, _is_nowhere)


def _is_nowhere(node: Node) -> bool:
    driver = node.driver
    if _is_unread(node) and _toolkit_said(node, _NO_LIBRARY):
        return need(node.runtime.driver_root) == "/"
    if asked(driver.nvidia_loaded):
        return False
    on_disk = asked(driver.module_on_disk_for_running_kernel)
    libraries = asked(driver.libraries_present)
    if on_disk is None:  # nobody looked for the module's file: nothing loaded and no library must do
        need(driver.nvidia_loaded)
        return not need(driver.libraries_present)
    return not on_disk and not libraries and not asked(driver.dkms_builds)


@fact
def module_is_idle_on_disk(context: Context) -> bool:
    """The nvidia module is on disk for this kernel and not loaded; where nobody looked, the toolkit says so."""

    def idle(node: Node) -> bool:
        if _is_unread(node):
            return not need(node.deliveries.serving(Component.DRIVER)) and _toolkit_said(node, _NOT_LOADED)
        return need(node.driver.module_on_disk_for_running_kernel) and not need(node.driver.nvidia_loaded)

    return any_node(context, idle)


def _is_unread(node: Node) -> bool:
    driver = node.driver
    readings = (driver.nvidia_loaded, driver.libraries_present, driver.module_on_disk_for_running_kernel)
    return all(isinstance(one, Missing) and one.kind is MissingKind.NOT_ASKED for one in readings)


def _toolkit_said(node: Node, what: re.Pattern[str]) -> bool:
    return any(what.search(text) is not None for text in need(node.runtime.cdi.errors))


@fact
def driver_module_is_newer_than_the_boot(context: Context) -> bool:
    """The nvidia module on disk was written after the node started."""
    return any_node(context, lambda node: need(node.driver.module_installed_after_boot))


@fact
def driver_module_predates_the_boot(context: Context) -> bool:
    """The nvidia module was on disk before the node started."""
    return any_node(
        context,
        lambda node: (
            need(node.driver.module_on_disk_for_running_kernel) and not need(node.driver.module_installed_after_boot)
        ),
    )


@fact
def driver_module_is_only_there_for_another_kernel(context: Context) -> bool:
    """The driver is installed, and its module was not built for the running kernel."""
    built = {Obstacle.HEADERS_MISSING, Obstacle.NOT_BUILT}
    return any_node(
        context,
        lambda node: (
            not need(node.driver.module_on_disk_for_running_kernel) and node.driver.hindrance.obstacle in built
        ),
    )


@fact
def kernel_headers_are_missing(context: Context) -> bool:
    """The running kernel's headers are not on the node."""
    return any_node(context, lambda node: not need(node.driver.kernel_headers_present))


@fact
def kernel_refuses_the_signature(context: Context) -> bool:
    """The kernel log says that the nvidia module's signature was refused."""
    return any_node(context, lambda node: bool(need(node.driver.kernel_log).of(NoticeKind.UNSIGNED_MODULE)))


@fact
def secure_boot_is_on(context: Context) -> bool:
    """The firmware enforces signatures."""
    return any_node(context, lambda node: need(node.driver.secure_boot))


@fact
def dkms_has_a_stale_tree(context: Context) -> bool:
    """DKMS stops at a source tree of a driver that is gone."""

    def stops(node: Node) -> bool:
        command = need(node.host.command("dkms status"))
        return command is not None and "Could not locate dkms.conf" in command.text

    return any_node(context, stops)


@fact
def module_is_being_unloaded(context: Context) -> bool:
    """An NVIDIA module stands in /proc/modules as Unloading."""

    def unloading(node: Node) -> bool:
        text = need(node.host.file("/proc/modules")) or ""
        return any(line.startswith("nvidia") and " Unloading " in line for line in text.splitlines())

    return any_node(context, unloading)


@fact
def loaded_module_and_libraries_differ(context: Context) -> bool:
    """The loaded nvidia module and the libraries that the loader finds have different versions."""

    def differ(node: Node) -> bool:
        version = need(node.driver.module_version)
        return version is not None and any(one != version for one in need(node.driver.library_versions).values())

    return any_node(context, differ)


@fact
def nvml_says_version_mismatch(context: Context) -> bool:
    """NVML refuses to start for a mismatch of module and library."""
    return any_node(context, lambda node: need(node.driver.nvml_init_code) == _VERSION_MISMATCH)


@fact
def module_on_disk_is_the_loaded_one(context: Context) -> bool:
    """The nvidia module on disk has the version of the loaded one, so that no reload is pending."""

    def same(node: Node) -> bool:
        file = need(node.driver.installed_module)
        loaded = need(node.driver.module_version)
        return file is not None and loaded is not None and file.version == loaded

    return any_node(context, same)


@fact
def a_library_of_the_driver_is_nowhere(context: Context) -> bool:
    """The loader finds no libnvidia-ml, or no libcuda, and no folder of libraries that was listed has it."""

    def nowhere(node: Node) -> bool:
        found = {one.name for one in need(node.driver.libraries)}
        return any(name not in found and asked(listed_library(node.host, name)) is None for name in WANTED)

    return all_nodes(context, nowhere)


@fact
def libraries_are_on_disk_but_not_in_the_cache(context: Context) -> bool:
    """A library of the driver stands in a folder that was listed, and the loader does not find it."""

    def hidden(node: Node, name: str) -> bool:
        return need(listed_library(node.host, name)) is not None and need(node.runtime.library(name)) is None

    return any_node(context, lambda node: any(hidden(node, name) for name in WANTED))


@fact
def device_nodes_are_missing(context: Context) -> bool:
    """/dev lacks nvidiactl, or the node of a GPU that the driver has."""

    def missing(node: Node) -> bool:
        if need(node.driver.device_node("nvidiactl")) is None:
            return True
        folder = need(node.driver.device_folder)
        names = {one.name for one in folder.entries} if folder is not None else set()
        minors = [need(node.driver.minor_of(gpu.identity)) for gpu in need(node.gpus)]
        there = sum(name.startswith("nvidia") and name[6:].isdecimal() for name in names)
        return there < len(minors) or any(minor is not None and f"nvidia{minor}" not in names for minor in minors)

    return any_node(context, missing)


@fact
def proprietary_module_meets_open_only_gpu(context: Context) -> bool:
    """The proprietary module is loaded (or installed), and a GPU needs the open one."""
    return any_node(context, lambda node: _wrong_flavour(node, Flavour.PROPRIETARY, "open"))


@fact
def open_module_meets_old_gpu(context: Context) -> bool:
    """The open module is loaded (or installed), and a GPU needs the proprietary one."""
    return any_node(context, lambda node: _wrong_flavour(node, Flavour.OPEN, "proprietary"))


@fact
def the_driver_s_branch_is_past_a_gpu(context: Context) -> bool:
    """The driver's branch is later than the last one that supports a GPU of the node."""

    def past(node: Node) -> bool:
        version = asked(node.driver.module_version)
        if version is None:
            file = need(node.driver.installed_module)
            version = file.version if file is not None else None
        lasts = [need(node.driver.generation(gpu.identity)).last_branch for gpu in need(node.gpus)]
        return version is not None and any(last is not None and int(version.split(".")[0]) > last for last in lasts)

    return any_node(context, past)


def _wrong_flavour(node: Node, flavour: Flavour, needed: str) -> bool:
    found = asked(node.driver.module_flavour)
    if found is None:
        file = need(node.driver.installed_module)
        found = file.flavour if file is not None else None
    if found is not flavour:
        return False
    return any(need(node.driver.generation(gpu.identity)).modules == needed for gpu in need(node.gpus))


@fact
def nvml_says_a_gpu_is_lost(context: Context) -> bool:
    """NVML answers "GPU is lost" for a GPU."""
    return _any_gpu(
        context,
        lambda gpu: any(answer.code == _GPU_IS_LOST for _, answer in need(gpu.node.driver.queries(gpu.identity))),
    )


@fact
def nvml_lacks_a_gpu_that_its_driver_holds(context: Context) -> bool:
    """NVML starts and does not list a GPU that is bound to the nvidia driver."""

    def lacks(node: Node) -> bool:
        if need(node.driver.nvml_init_code) != 0:
            return False
        bound = {gpu.address for gpu in need(node.driver.pci_gpus) if gpu.driver == "nvidia"}
        return any(gpu.identity.index is None and gpu.identity.address in bound for gpu in need(node.gpus))

    return any_node(context, lacks)


@fact
def node_has_fewer_gpus_than_its_siblings(context: Context) -> bool:
    """Most nodes of the node's kind have more GPUs, in a number that is not sold for its chassis."""

    def lacks(node: Node) -> bool:
        reading = need(context.cluster.siblings.traits).get(node.name)
        traits = None if reading is None else need(reading)
        usual = need(context.cluster.siblings.usual).get(traits.kind) if traits is not None else None
        if traits is None or usual is None or usual.count is None:
            return False
        mine, most = need(traits.count), usual.count.value
        return mine is not None and mine < most and (traits.kind.is_told or most % mine != 0)

    return any_node(context, lacks)


@fact
def vector_addition_came_out_wrong(context: Context) -> bool:
    """The workload ran on a GPU, and sums that it computed are wrong."""
    return any_node(
        context,
        lambda node: any(
            found.wrong for gpu in _mine(context, node) if (found := need(node.workload.of(gpu))) is not None
        ),
    )


@fact
def row_remap_is_pending(context: Context) -> bool:
    """A bad row of a GPU's memory waits to be remapped, or a bad page to be retired."""

    def waits(gpu: Gpu) -> bool:
        remap = need(gpu.health.remap)
        return bool(need(gpu.health.retirement_is_pending)) if remap is None else remap.pending

    return _any_gpu(context, waits)


@fact
def memory_has_no_spare_rows(context: Context) -> bool:
    """A row of a GPU's memory could not be remapped, or a bank of it has no spare row left."""

    def lacks(gpu: Gpu) -> bool:
        remap = need(gpu.health.remap)
        return remap is not None and (remap.failed or bool(need(gpu.health.banks_without_spares)))

    return _any_gpu(context, lacks)


@fact
def a_gpu_counts_uncorrectable_errors(context: Context) -> bool:
    """A GPU counts uncorrectable memory errors since the driver loaded, or too many in its SRAM."""

    def counts(gpu: Gpu) -> bool:
        sram = asked(gpu.health.sram)
        return bool(need(gpu.health.uncorrected)) or (sram is not None and sram.exceeded)

    return _any_gpu(context, counts)


@fact
def an_inforom_is_corrupted(context: Context) -> bool:
    """NVML calls the InfoROM of a GPU corrupted."""
    return _any_gpu(context, lambda gpu: bool(need(gpu.health.inforom_is_damaged)))


@fact
def a_power_limit_is_below_its_default(context: Context) -> bool:
    """A GPU's power limit was set below its default."""

    def below(gpu: Gpu) -> bool:
        return any(one.unit == "W" and one.now < one.default for one in need(gpu.health.settings))

    return _any_gpu(context, below)


@fact
def a_memory_window_has_no_address(context: Context) -> bool:
    """A GPU's window on its memory has no address on the bus."""

    def lacks(node: Node) -> bool:
        shown = [need(windows(node.host, gpu.address)) for gpu in need(node.driver.pci_gpus)]
        return any(not one.assigned for found in shown for one in found)

    return any_node(context, lacks)


@fact
def the_node_manages_nvswitches(context: Context) -> bool:
    """The node has NVSwitches that its own Fabric Manager sets up."""
    return any_node(context, lambda node: need(node.driver.manages_switches))


@fact
def fabric_manager_must_run_and_does_not(context: Context) -> bool:
    """The node has NVSwitches that its own Fabric Manager sets up, and Fabric Manager does not run."""

    def lacks(node: Node) -> bool:
        return need(node.driver.manages_switches) and not need(node.driver.services.is_running(FABRIC_MANAGER))

    return any_node(context, lacks)


@fact
def fabric_manager_runs(context: Context) -> bool:
    """Fabric Manager runs on the node."""
    return any_node(context, lambda node: need(node.driver.services.is_running(FABRIC_MANAGER)))


@fact
def fabric_manager_has_another_version(context: Context) -> bool:
    """The installed Fabric Manager is of another version than the loaded driver."""

    def differs(node: Node) -> bool:
        mine, module = need(node.driver.services.fabric_manager_version), need(node.driver.module_version)
        return mine is not None and module is not None and mine != module

    return any_node(context, differs)


@fact
def the_fabric_is_not_complete(context: Context) -> bool:
    """A GPU's registration with its NVLink fabric has not completed, or CUDA says that the fabric is not ready."""

    def incomplete(node: Node) -> bool:
        if asked(node.driver.cuda_init_code) == _NOT_READY:
            return True
        fabrics = [asked(gpu.health.fabric) for gpu in need(node.gpus)]
        return any(one is not None and one.state in _UNFINISHED for one in fabrics)

    return any_node(context, incomplete)


@fact
def the_fabric_calls_itself_unhealthy(context: Context) -> bool:
    """A GPU registered with its NVLink fabric, which calls its bandwidth, routes or configuration bad."""

    def is_bad(gpu: Gpu) -> bool:
        fabric = need(gpu.health.fabric)
        return fabric is not None and fabric.state is FabricState.COMPLETED and bool(fabric.troubles)

    return _any_gpu(context, is_bad)


@fact
def a_board_lacks_a_gpu(context: Context) -> bool:
    """The node with NVSwitches has an odd number of GPUs on its bus, or NVML lists fewer than the bus has.

    Boards with NVSwitches have 4, 8 or 16; a virtual machine is given 1, 2, 4 or 8 of them.
    """

    def lacks(node: Node) -> bool:
        on_bus, listed = len(need(node.driver.pci_gpus)), len(need(node.driver.nvml_gpus))
        return listed < on_bus or (on_bus > 1 and on_bus % 2 == 1)

    return any_node(context, lacks)


@fact
def infiniband_modules_are_missing_for_the_fabric(context: Context) -> bool:
    """The node manages the NVSwitches of Blackwells, which takes InfiniBand, and mlx5_ib or ib_umad is not loaded."""

    def lacks(node: Node) -> bool:
        generations = [need(node.driver.generation(gpu.identity)).name for gpu in need(node.gpus)]
        if "Blackwell" not in generations or not need(node.driver.manages_switches):
            return False
        return any(not need(node.driver.is_loaded(one)) for one in ("mlx5_ib", "ib_umad"))

    return any_node(context, lacks)


@fact
def a_gpu_is_in_a_rack_domain(context: Context) -> bool:
    """A GPU is part of an NVLink domain of several nodes."""
    return _any_gpu(context, lambda gpu: need(gpu.health.is_in_rack_domain))


@fact
def imex_does_not_run(context: Context) -> bool:
    """The service nvidia-imex does not run on the node."""
    return all_nodes(context, lambda node: not need(node.driver.services.is_running(IMEX)))


@fact
def imex_runs(context: Context) -> bool:
    """The service nvidia-imex runs on the node."""
    return any_node(context, lambda node: need(node.driver.services.is_running(IMEX)))


@fact
def cuda_says_versions_differ(context: Context) -> bool:
    """CUDA does not start for a mismatch of module and library (803)."""
    return any_node(context, lambda node: need(node.driver.cuda_init_code) == _MISMATCH)


@fact
def compute_mode_is_not_default(context: Context) -> bool:
    """A GPU's compute mode is exclusive or prohibited."""
    return _any_gpu(
        context,
        lambda gpu: need(gpu.node.driver.query(gpu.identity, "nvmlDeviceGetComputeMode")).value not in {0, None},
    )


@fact
def mig_is_on_without_devices(context: Context) -> bool:
    """MIG is on for a GPU, and it has no MIG device."""

    def empty(gpu: Gpu) -> bool:
        driver = gpu.node.driver
        return need(driver.mig_is_on(gpu.identity)) and not need(driver.mig_profiles(gpu.identity))

    return _any_gpu(context, empty)


@fact
def xid_says_fallen_off_the_bus(context: Context) -> bool:
    """The kernel log says that this GPU has fallen off the bus (XID 79)."""
    return _has_xid(context, _FELL_OFF) or _has_notice(context, NoticeKind.FELL_OFF)


@fact
def xid_says_gsp_timeout(context: Context) -> bool:
    """The kernel log has a timeout of this GPU's system processor (XID 119, 120, or in words)."""
    return _has_xid(context, _GSP)


@fact
def xid_says_uncorrectable_memory_error(context: Context) -> bool:
    """The kernel log has an uncorrectable memory error of this GPU (XID 48, 63, 64, 94, 95 and later ones)."""
    return _has_xid(context, _MEMORY)


@fact
def xid_says_nvlink_error(context: Context) -> bool:
    """The kernel log has an NVLink error of this GPU (XID 74, 144 to 150)."""
    return _has_xid(context, _NVLINK)


@fact
def an_nvswitch_had_a_fatal_error(context: Context) -> bool:
    """The kernel log has an error that an NVSwitch calls fatal (SXid)."""
    return any_node(context, lambda node: bool(need(node.driver.switch_errors)))


@fact
def xids_are_those_of_applications(context: Context) -> bool:
    """Every XID of this GPU is one that a faulty program causes on a sound GPU, and none is said to follow another."""
    found = [xid for node in context.nodes for xid in _xids(context, node)]
    return bool(found) and all(xid.code in xids().application and xid.previous is None for xid in found)


def _has_xid(context: Context, codes: frozenset[int]) -> bool:
    return any_node(context, lambda node: any(xid.code in codes for xid in _xids(context, node)))


def _xids(context: Context, node: Node) -> tuple[Xid, ...]:
    """Return the XIDs of the subject's GPU, for any other subject those of all GPUs of the node."""
    if context.subject.kind is not SubjectKind.GPU:
        return need(node.driver.kernel_log).xids
    return tuple(xid for gpu in _mine(context, node) for xid in need(node.driver.xids(gpu.identity)))


def _has_notice(context: Context, kind: NoticeKind) -> bool:
    def has(node: Node) -> bool:
        notices = need(node.driver.kernel_log).of(kind)
        if context.subject.kind is not SubjectKind.GPU:
            return bool(notices)
        slots = {slot_of(gpu.identity.address or "") for gpu in _mine(context, node)}
        return any(one.address in slots for one in notices if one.address)

    return any_node(context, has)


def _mine(context: Context, node: Node) -> tuple[Gpu, ...]:
    gpus = need(node.gpus)
    if context.subject.kind is not SubjectKind.GPU:
        return gpus
    return tuple(gpu for gpu in gpus if gpu.subject == context.subject)


def _any_gpu(context: Context, predicate: Callable[[Gpu], bool]) -> bool:
    return any_node(context, lambda node: one_of(_mine(context, node), predicate))
