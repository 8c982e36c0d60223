"""Writes workloads/rbac/: the rights that a run needs, from what it asks for. Read the difference before it is kept.

Run by hand: `python tests/write_rbac.py`, with the library on the path. Not a test.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

import rbac

LABELS: Final = {"app.kubernetes.io/name": "gpucheck"}
HOME: Final = "gpucheck-access"
"""The service account's namespace: not the one that probes run in, which a run removes."""
GROUP: Final = "rbac.authorization.k8s.io"
WORDS: Final = {
    "troubleshoot": (
        "What 'gpucheck run' and 'gpucheck collect' read of a whole cluster, and no more: no Secret, nothing\n"
        "through a node's proxy, nothing written.\n"
        "    kubectl apply -f troubleshoot.yaml\n"
        "    kubectl create token gpucheck -n gpucheck-access\n"
        "For people, bind the ClusterRole to a group of theirs instead."
    ),
    "pod": (
        "What 'gpucheck run --pod NAMESPACE/NAME' reads of that namespace, and no more.\n"
        "Whoever has the ClusterRole 'view' there has it.\n"
        "    kubectl apply -n NAMESPACE -f pod.yaml\n"
        "    kubectl create rolebinding gpucheck-pod -n NAMESPACE --role=gpucheck-pod --user=NAME"
    ),
}


def main() -> int:
    """Write the manifests, and say which have changed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in texts(rbac.derived(Path(folder))).items():
            path = rbac.FOLDER / f"{name}.yaml"
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
            print(f"{path.name}: {'unchanged' if before == content else 'written'}")
    return 0


def texts(rules: Mapping[str, list[rbac.Rule]]) -> Mapping[str, str]:
    """Return the text of each manifest, by its name."""
    return {
        "troubleshoot": text("troubleshoot", cluster_wide(rules["troubleshoot"])),
        "pod": text("pod", [role("Role", "gpucheck-pod", rules["pod"])]),
    }


def text(name: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """Return a manifest: what it is for, and its objects."""
    words = f"{WORDS[name]}\nWritten by tests/write_rbac.py from the requests of a run; tests/test_access.py compares."
    comment = "".join(f"# {line}\n" for line in words.splitlines())
    return comment + "---\n".join(
        yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110) for document in documents
    )


def named(kind: str, name: str, api: str = "v1", **more: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **more, "labels": dict(LABELS)}}


def role(kind: str, name: str, rules: Sequence[rbac.Rule]) -> dict[str, Any]:
    return {**named(kind, name, f"{GROUP}/v1"), "rules": list(rules)}


def cluster_wide(rules: Sequence[rbac.Rule]) -> list[dict[str, Any]]:
    return [
        named("Namespace", HOME),
        named("ServiceAccount", "gpucheck", namespace=HOME),
        role("ClusterRole", "gpucheck-troubleshoot", rules),
        {
            **named("ClusterRoleBinding", "gpucheck-troubleshoot", f"{GROUP}/v1"),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "gpucheck-troubleshoot"},
            "subjects": [{"kind": "ServiceAccount", "name": "gpucheck", "namespace": HOME}],
        },
    ]


if __name__ == "__main__":
    sys.exit(main())
