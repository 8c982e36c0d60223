"""Driver layer: kernel module and libraries belong together."""

from kube_gpucheck.evidence import Node
from kube_gpucheck.evidence.nvml import is_not_asked
from kube_gpucheck.evidence.tables import nvml_code
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity

VERSION_MISMATCH = 18


@check("DRV-004", layer=Layer.DRIVER, severity=Severity.CRITICAL, after=("DRV-003",))
def check_module_and_libraries_have_one_version(node: Node) -> None:
    """The kernel module and the user-space libraries have one version.

    Judged by what NVML says when it starts and by the names of libnvidia-ml and libcuda that the loader finds. Not
    judged: an API mismatch in the kernel log alone, which may be past, and libraries in other driver roots (RTM-016).
    """
    driver = node.driver
    version = known(driver.module_version, "the loaded nvidia module")
    if version is None:
        not_applicable("no nvidia module is loaded; DRV-003 judges that")
    code = None if is_not_asked(driver.nvml_init_code) else known(driver.nvml_init_code, "NVML's start")
    versions = driver.library_versions
    if code is None:
        known(versions, "the libraries' version")
    told = {} if is_not_asked(versions) else known(versions, "the libraries' version")
    others = {name: one for name, one in told.items() if one != version}
    if code != VERSION_MISMATCH and not others:
        if code not in {0, None} and not told:
            not_applicable(f"NVML does not start, for another reason: {nvml_code(code)}; DRV-005 judges that")
        return
    fault(seen=_facts(node, version, told, code), means=_meaning(node, version), remedy=_remedy(node, version))


def _facts(node: Node, version: str, told: dict[str, str], code: int | None) -> str:
    parts = [f"the loaded nvidia module is {version}"]
    parts.extend(f"{name} is {one}" for name, one in told.items())
    if code == VERSION_MISMATCH:
        parts.append(f"nvmlInit answers {nvml_code(VERSION_MISMATCH)}")
    log = node.driver.kernel_log
    if isinstance(log, Seen) and log.value.mismatches:
        last = log.value.mismatches[-1]
        client = f" '{last.client}'" if last.client else ""
        parts.append(f"the kernel log says that it refused the client{client} of version {last.client_version}")
    return "; ".join(parts)


def _module_on_disk(node: Node) -> str | None:
    file = node.driver.installed_module
    return file.value.version if isinstance(file, Seen) and file.value is not None else None


def _meaning(node: Node, version: str) -> str:
    if _module_on_disk(node) == version:
        return "module and libraries were installed from different sources: the module on disk is the loaded one too"
    return "the driver was updated on disk while the module of the earlier version stays loaded"


def _remedy(node: Node, version: str) -> str:
    if _module_on_disk(node) == version:
        step = "keep one package source, reinstall all NVIDIA packages at one version, drain and reboot the node"
    else:
        step = "drain and reboot the node, and hold the NVIDIA packages in automatic updates"
    return f"{step}; then run 'gpucheck run -k DRV-004'"
