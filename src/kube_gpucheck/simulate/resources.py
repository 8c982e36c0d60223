"""The kinds that an embedded cluster serves, each with what discovery says of it.

What the bundle's discovery lists is served, and nothing else; the table gives names and scopes, and the
bundle's own objects those of kinds that are not in it. Source: `kubectl api-resources` of Kubernetes 1.36;
the custom resource definitions of NFD 0.18, GPU Operator 25.10 and prometheus-operator 0.86.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from kube_gpucheck.evidence.bundle import DiscoveryRecord, GroupRecord
from kube_gpucheck.simulate.answers import qualified

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
REVIEW_VERBS: Final = ("create",)


class Resource(msgspec.Struct, frozen=True):
    """One kind of a group."""

    group: str
    plural: str
    kind: str
    namespaced: bool
    singular: str
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS

    @property
    def name(self) -> str:
        """`<plural>[.<group>]`, as a bundle calls it."""
        return qualified(self.plural, self.group)


_SHORT: Final[Mapping[str, str]] = {
    "configmaps": "cm",
    "controllerrevisions": "",
    "cronjobs": "cj",
    "customresourcedefinitions": "crd,crds",
    "daemonsets": "ds",
    "deployments": "deploy",
    "endpoints": "ep",
    "events": "ev",
    "horizontalpodautoscalers": "hpa",
    "ingresses": "ing",
    "limitranges": "limits",
    "namespaces": "ns",
    "networkpolicies": "netpol",
    "nodes": "no",
    "persistentvolumeclaims": "pvc",
    "persistentvolumes": "pv",
    "poddisruptionbudgets": "pdb",
    "podmonitors": "pmon",
    "pods": "po",
    "priorityclasses": "pc",
    "prometheuses": "prom",
    "prometheusrules": "promrule",
    "replicasets": "rs",
    "replicationcontrollers": "rc",
    "resourcequotas": "quota",
    "serviceaccounts": "sa",
    "servicemonitors": "smon",
    "services": "svc",
    "statefulsets": "sts",
    "storageclasses": "sc",
}
_IN_ALL: Final = frozenset(
    {
        "cronjobs",
        "daemonsets",
        "deployments",
        "horizontalpodautoscalers",
        "jobs",
        "pods",
        "replicasets",
        "replicationcontrollers",
        "services",
        "statefulsets",
    }
)
_REVIEWS: Final = frozenset(
    {
        "localsubjectaccessreviews",
        "selfsubjectaccessreviews",
        "selfsubjectreviews",
        "selfsubjectrulesreviews",
        "subjectaccessreviews",
        "tokenreviews",
    }
)
_TABLE: Final[Mapping[str, str]] = {
    "": (
        "ConfigMap:configmaps Endpoints:endpoints Event:events LimitRange:limitranges -Namespace:namespaces "
        "-Node:nodes PersistentVolumeClaim:persistentvolumeclaims -PersistentVolume:persistentvolumes Pod:pods "
        "PodTemplate:podtemplates ReplicationController:replicationcontrollers ResourceQuota:resourcequotas "
        "Secret:secrets ServiceAccount:serviceaccounts Service:services"
    ),
    "admissionregistration.k8s.io": (
        "-MutatingWebhookConfiguration:mutatingwebhookconfigurations "
        "-ValidatingAdmissionPolicy:validatingadmissionpolicies "
        "-ValidatingAdmissionPolicyBinding:validatingadmissionpolicybindings "
        "-ValidatingWebhookConfiguration:validatingwebhookconfigurations"
    ),
    "apiextensions.k8s.io": "-CustomResourceDefinition:customresourcedefinitions",
    "apiregistration.k8s.io": "-APIService:apiservices",
    "apps": (
        "ControllerRevision:controllerrevisions DaemonSet:daemonsets Deployment:deployments ReplicaSet:replicasets "
        "StatefulSet:statefulsets"
    ),
    "authentication.k8s.io": "-SelfSubjectReview:selfsubjectreviews -TokenReview:tokenreviews",
    "authorization.k8s.io": (
        "LocalSubjectAccessReview:localsubjectaccessreviews -SelfSubjectAccessReview:selfsubjectaccessreviews "
        "-SelfSubjectRulesReview:selfsubjectrulesreviews -SubjectAccessReview:subjectaccessreviews"
    ),
    "autoscaling": "HorizontalPodAutoscaler:horizontalpodautoscalers",
    "batch": "CronJob:cronjobs Job:jobs",
    "certificates.k8s.io": "-CertificateSigningRequest:certificatesigningrequests",
    "coordination.k8s.io": "Lease:leases",
    "discovery.k8s.io": "EndpointSlice:endpointslices",
    "events.k8s.io": "Event:events",
    "flowcontrol.apiserver.k8s.io": ("-FlowSchema:flowschemas -PriorityLevelConfiguration:prioritylevelconfigurations"),
    "monitoring.coreos.com": (
        "PodMonitor:podmonitors Prometheus:prometheuses PrometheusRule:prometheusrules ServiceMonitor:servicemonitors"
    ),
    "networking.k8s.io": "-IngressClass:ingressclasses Ingress:ingresses NetworkPolicy:networkpolicies",
    "nfd.k8s-sigs.io": "-NodeFeatureRule:nodefeaturerules NodeFeatureGroup:nodefeaturegroups NodeFeature:nodefeatures",
    "node.k8s.io": "-RuntimeClass:runtimeclasses",
    "nvidia.com": "-ClusterPolicy:clusterpolicies -GPUCluster:gpuclusters -NVIDIADriver:nvidiadrivers",
    "policy": "PodDisruptionBudget:poddisruptionbudgets",
    "rbac.authorization.k8s.io": (
        "-ClusterRoleBinding:clusterrolebindings -ClusterRole:clusterroles RoleBinding:rolebindings Role:roles"
    ),
    "resource.k8s.io": (
        "-DeviceClass:deviceclasses -DeviceTaintRule:devicetaintrules ResourceClaim:resourceclaims "
        "ResourceClaimTemplate:resourceclaimtemplates -ResourceSlice:resourceslices"
    ),
    "resource.nvidia.com": "ComputeDomain:computedomains ComputeDomainClique:computedomaincliques",
    "scheduling.k8s.io": "-PriorityClass:priorityclasses",
    "storage.k8s.io": (
        "-CSIDriver:csidrivers -CSINode:csinodes CSIStorageCapacity:csistoragecapacities -StorageClass:storageclasses "
        "-VolumeAttachment:volumeattachments"
    ),
}
"""By group, `Kind:plural`; a hyphen before it where objects have no namespace."""


def _known(group: str, entry: str) -> Resource:
    kind, _, plural = entry.removeprefix("-").partition(":")
    short = tuple(one for one in _SHORT.get(plural, "").split(",") if one)
    return Resource(
        group,
        plural,
        kind,
        not entry.startswith("-"),
        kind.lower(),
        () if group == "events.k8s.io" and not short else short,
        ("all",) if plural in _IN_ALL else (),
        REVIEW_VERBS if plural in _REVIEWS else VERBS,
    )


KNOWN: Final[Mapping[str, tuple[Resource, ...]]] = {
    group: tuple(_known(group, entry) for entry in sorted(entries.split(), key=lambda one: one.partition(":")[2]))
    for group, entries in _TABLE.items()
}
"""The table's kinds by group, in order of plural."""
_BY_NAME: Final = {one.name: one for kinds in KNOWN.values() for one in kinds}


class _Sample(msgspec.Struct, frozen=True):
    """What an object tells of its kind."""

    kind: str = ""
    metadata: "_SampleMetadata | None" = None


class _SampleMetadata(msgspec.Struct, frozen=True):
    namespace: str | None = None


def resource_of(name: str, sample: bytes | None = None) -> Resource:
    """Return a kind by its full name; of one that the table lacks what one of its objects tells, else a guess."""
    known = _BY_NAME.get(name)
    if known is not None:
        return known
    plural, _, group = name.partition(".")
    singular = f"{plural[:-3]}y" if plural.endswith("ies") else plural.removesuffix("s")
    try:
        told = msgspec.json.decode(sample or b"{}", type=_Sample)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        told = _Sample()
    kind = told.kind or singular.capitalize()
    namespaced = told.metadata is None or bool(told.metadata.namespace)
    return Resource(group, plural, kind, namespaced, kind.lower())


class Served:
    """The groups, versions and kinds that a bundle's discovery lists; without discovery, whatever is asked for."""

    def __init__(self, record: DiscoveryRecord | None, samples: Mapping[str, bytes | None]) -> None:
        """Work out the kinds of each group. `samples` holds one object, if there is one, of each kind of the bundle."""
        self.record = record
        self._samples = samples
        self._groups = {group.name: group for group in record.groups} if record is not None else {}
        if record is not None and "" not in self._groups:
            self._groups = {"": GroupRecord("", ("v1",)), **self._groups}

    def groups(self) -> Iterable[GroupRecord]:
        """Return the served groups, the core group (``""``) among them, in the bundle's order."""
        return self._groups.values()

    def kinds(self, group: GroupRecord) -> tuple[Resource, ...]:
        """Return a group's kinds; where the bundle does not know them, the table's and those of its objects."""
        if group.resources is not None:
            return tuple(self.kind(qualified(plural, group.name)) for plural in group.resources)
        names = {one.name: None for one in KNOWN.get(group.name, ())}
        names.update({name: None for name in self._samples if name.partition(".")[2] == group.name})
        return tuple(self.kind(name) for name in sorted(names))

    def kind(self, name: str) -> Resource:
        """Return a kind by its full name."""
        return resource_of(name, self._samples.get(name))

    def without(self, group: str) -> "Served":
        """Return the same without an API group."""
        record = self.record or DiscoveryRecord("", tuple(GroupRecord(name, ("v1",)) for name in KNOWN))
        left = tuple(one for one in record.groups if one.name != group)
        return Served(msgspec.structs.replace(record, groups=left), self._samples)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """Return the kind at a path, None if it is not served there. Reviews always are, as in every cluster."""
        name = qualified(plural, group)
        if self.record is None or (plural in _REVIEWS and name in _BY_NAME):
            return self.kind(name)
        found = self._groups.get(group)
        if found is None or version not in found.versions:
            return None
        if found.resources is not None and plural not in found.resources:
            return None
        return self.kind(name)


def is_known(name: str) -> bool:
    """Tell whether the table has a kind."""
    return name in _BY_NAME
