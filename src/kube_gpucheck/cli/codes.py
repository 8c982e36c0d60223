"""What `gpucheck explain xid 79`, `nvml 15`, `cuda 802` and `label KEY` show: what the tables in `data/` say."""

import re
from typing import Final

from kube_gpucheck.cli.sources import catalogue
from kube_gpucheck.cli.streams import width
from kube_gpucheck.errors import UsageError
from kube_gpucheck.evidence.tables import cuda_code, label_of, labels, nvml_code, xids
from kube_gpucheck.report import listing

KINDS: Final = ("xid", "nvml", "cuda", "label")
"""Words that a number follows, or a label's key."""
_WRITERS: Final = {
    "gfd": "GPU Feature Discovery",
    "nfd": "Node Feature Discovery",
    "operator": "the GPU Operator",
    "mig-manager": "the MIG manager",
    "user": "a person, who asks for something by it",
}
_LINE: Final = "NVRM: Xid (PCI:0000:3b:00): {code}, pid=4711, name=python3, …"
_JUDGES: Final = {"nvml": ("DRV-005", "DRV-023"), "cuda": ("DRV-032",)}


def page(kind: str, number: str) -> str:
    """Return the page of a code or label.

    Raises:
        UsageError: the number is none, or the table does not have it.
    """
    if kind == "label":
        return _label(number)
    if not re.fullmatch(r"\d{1,5}", number):
        msg = (
            f"{kind} {number}".strip()
            + f": expected a number behind '{kind}'; write it as 'gpucheck explain {kind} {_EXAMPLES[kind]}'"
        )
        raise UsageError(msg)
    return _xid(int(number)) if kind == "xid" else _return_code(kind, int(number))


_EXAMPLES: Final = {"xid": 79, "nvml": 15, "cuda": 802}


def _xid(code: int) -> str:
    table = xids()
    found = table.of(code)
    if found is None:
        msg = f"xid {code}: NVIDIA's catalogue does not use it; if it was seen, ask the GPU's vendor"
        raise UsageError(msg)
    line = _LINE.format(code=code)
    known = catalogue()
    causes = [
        (cause.id, cause.title)
        for cause in known.causes
        if any(
            leaf.log is not None and leaf.log.component == "kernel" and re.search(leaf.log.re, line, re.IGNORECASE)
            for sign in (*cause.needs, *cause.hints)
            for leaf in sign.leaves
        )
    ]
    is_program_s = code in table.application
    if is_program_s:
        weight = "minor alone: a faulty program causes it on a sound GPU; an echo where another XID came before it"
    elif code in table.pending:
        weight = "major: the GPU works on, and asks for a reset at the next chance"
    elif found.action == "none" and not found.then:
        weight = "none: it asks for nothing"
    else:
        weight = "major: it calls for action"
    steps = [table.actions[one] for one in (found.action, found.then) if one]
    if code in table.pending:
        steps = [table.actions["reset-gpu"] + ", at the next chance"]
    if not is_program_s and steps != [table.actions["none"]]:
        steps.append("restart the device plugin's pod of the node afterwards: it gives a GPU back in no other way")
    return listing.code_page(
        f"XID {code}  {found.name}",
        text=found.meaning,
        facts=[
            ("in the kernel's log", line),
            ("weight (DRV-011)", weight),
            (
                "the device plugin",
                "ignores it" if is_program_s else "takes the GPU away, where NVML reports the XID to it",
            ),
        ],
        steps=steps,
        causes=causes,
        proof="gpucheck run -k DRV-011",
        source="NVIDIA, 'XID Errors' (docs.nvidia.com/deploy/xid-errors); k8s-device-plugin, internal/rm/health.go",
        width=width(),
    )


def _label(told: str) -> str:
    key, _, value = told.partition("=")
    shown, found = next(((one, label) for one in _spellings(key) if (label := label_of(one))), (key, None))
    if found is None:
        near = [one.key for one in labels() if key and key.rpartition("/")[2] in one.key]
        more = f"; of those that are, like it: {', '.join(near[:5])}" if near else ""
        msg = f"label {told}".strip() + f": no label of the GPU stack is called so{more}"
        raise UsageError(msg)
    since = [("since", f"GFD {found.since}")] if found.since != "0.0" else []
    gone = [("until", f"GFD {found.until}")] if found.until else []
    new = [("deprecated, in place of it", found.instead)] if found.instead else []
    return listing.code_page(
        f"LABEL {shown}{f'={value}' if value else ''}",
        text=found.says,
        facts=[("written by", _WRITERS[found.writer]), ("where", found.where), *since, *gone, *new],
        steps=[f"kubectl get nodes -L {shown}"],
        causes=[],
        proof=f"gpucheck run -k '{' or '.join(_LABEL_JUDGES[found.writer])}'",
        source="k8s-device-plugin, docs/gpu-feature-discovery and internal/lm; node-feature-discovery; gpu-operator",
        width=width(),
    )


def _spellings(key: str) -> tuple[str, ...]:
    """Return a key as it was typed, and with the domains that are left out in talk."""
    return (key,) if "/" in key else (f"nvidia.com/{key}", f"feature.node.kubernetes.io/{key}")


_LABEL_JUDGES: Final = {
    "gfd": ("DSC-004", "DSC-005", "DSC-006"),
    "nfd": ("DSC-001", "DSC-002"),
    "operator": ("DSC-002", "SHR-008"),
    "mig-manager": ("SHR-004",),
    "user": ("SHR-001", "SHR-004"),
}


def _return_code(kind: str, code: int) -> str:
    found = nvml_code(code) if kind == "nvml" else cuda_code(code)
    if found.name == "?":
        msg = f"{kind} {code}: {found.meaning}"
        raise UsageError(msg)
    judges = _JUDGES[kind]
    told = "where NVML starts (DRV-005), or of one GPU (DRV-023)" if kind == "nvml" else "where CUDA starts (DRV-032)"
    if kind == "nvml" and not found.lost and code:
        judges, told = judges[:1], "where NVML starts (DRV-005)"
    prefix = (
        "NVML_ERROR_" if kind == "nvml" and code else "NVML_" if kind == "nvml" else "CUDA_ERROR_" if code else "CUDA_"
    )
    return listing.code_page(
        f"{kind.upper()} {code}  {prefix}{found.name}",
        text=found.meaning,
        facts=[("a fault", "no" if not code else told), *([("of a GPU", "it cannot be used")] if found.lost else [])],
        steps=[found.remedy],
        causes=[],
        proof=f"gpucheck run -k '{' or '.join(judges)}'",
        source="nvml.h, nvmlReturn_t" if kind == "nvml" else "CUDA Driver API, cudaError_enum",
        width=width(),
    )
