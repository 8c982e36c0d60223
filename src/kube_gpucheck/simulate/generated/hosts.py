"""Gives every GPU node the reads of one recorded host, under identities of its own."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from kube_gpucheck.errors import ScenarioError
from kube_gpucheck.evidence.bundle import Bundle
from kube_gpucheck.evidence.documents import NodeDocument
from kube_gpucheck.simulate.generated.plan import GeneratedCluster, Machines, NodePlan, Product, machines

_GPU: Final = re.compile(rb"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOG: Final = "log:"


class _Nodes(msgspec.Struct, frozen=True):
    items: tuple[NodeDocument, ...]


class HostTemplate(msgspec.Struct, frozen=True):
    """One node of a bundle: what was read on it, and what its labels and the kubelet say of it."""

    node: str
    boot_id: str
    record: bytes
    logs: dict[str, bytes]
    reads: tuple[str, ...]
    machines: Machines
    gpus: int

    @classmethod
    def of(cls, bundle: Bundle, cluster: GeneratedCluster) -> "HostTemplate":
        """Return the one node of a bundle.

        Raises:
            ScenarioError: the bundle has not one node with reads, or the node is not of the cluster's kind.
        """
        name = bundle.store.name
        hosts = bundle.manifest.asked.host
        content = bundle.store.read("cluster/nodes.json")
        if len(hosts) != 1 or content is None:
            msg = f"generate: host '{name}' has reads of {len(hosts)} nodes, expected one that is in its list of nodes"
            raise ScenarioError(msg)
        ((node, reads),) = hosts.items()
        documents = msgspec.json.decode(content, type=_Nodes).items
        document = next((one for one in documents if one.metadata.name == node), None)
        record = bundle.store.read(f"nodes/{node}/host.json")
        labels = document.metadata.labels or {} if document else {}
        count = labels.get("nvidia.com/gpu.count", "0")
        if document is None or record is None or count != str(cluster.gpus_per_node):
            msg = f"generate: host '{name}' has {count} GPUs, expected {cluster.gpus_per_node} (gpus_per_node)"
            raise ScenarioError(msg)
        units = [key.removeprefix(_LOG) for key in reads if key.startswith(_LOG)]
        logs = {unit: bundle.store.read(f"nodes/{node}/logs/{unit}.log") for unit in units}
        info = document.status.node_info
        product = Product(
            instance="hgx",
            product=labels["nvidia.com/gpu.product"],
            memory=int(labels["nvidia.com/gpu.memory"]),
            family=labels["nvidia.com/gpu.family"],
            compute=f"{labels['nvidia.com/gpu.compute.major']}.{labels['nvidia.com/gpu.compute.minor']}",
            mig=labels["nvidia.com/mig.capable"] == "true",
            machine=labels["nvidia.com/gpu.machine"],
            cpu="intel",
            cores=192,
            ram_gib=2015,
            share=1,
        )
        made_of = msgspec.structs.replace(
            machines(),
            kubernetes=info.kubelet_version,
            engine=info.container_runtime_version,
            kernel=info.kernel_version,
            os_image=info.os_image,
            driver=labels["nvidia.com/cuda.driver-version.full"],
            cuda=labels["nvidia.com/cuda.runtime-version.full"],
            tells_handlers=False,
            products=(product,),
        )
        found = {unit: text for unit, text in logs.items() if text is not None}
        return cls(node, info.boot_id, record, found, reads, made_of, int(count))

    def files(self, plan: NodePlan) -> Iterator[tuple[str, bytes]]:
        """Yield the files of one node: the template's, with the node's name, boot and GPUs."""
        uuids = sorted(set(_GPU.findall(self.record)))
        names = {
            self.node.encode(): plan.name.encode(),
            self.boot_id.encode(): plan.uid("boot").encode(),
            **{one: f"GPU-{plan.uid('gpu', place)}".encode() for place, one in enumerate(uuids)},
        }
        pattern = re.compile(b"|".join(map(re.escape, names)))
        for path, content in (("host.json", self.record), *((f"logs/{u}.log", t) for u, t in self.logs.items())):
            yield f"nodes/{plan.name}/{path}", pattern.sub(lambda match: names[match[0]], content)
