"""What NVIDIA's DRA driver publishes, who claims it, and why a claim is not allocated."""

from typing import Any

import msgspec
import pytest

import suite
from bundle_builders import MANIFEST, listed, node
from kube_gpucheck.evidence import Cluster
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.evidence.claims import Lack, Shortage, claims_devices, claims_of, pods_that_claim, shortage
from kube_gpucheck.evidence.documents import DeviceRequest, PodSpec, ResourceSliceDocument
from kube_gpucheck.evidence.dra import DOMAIN_DRIVER, GPU_DRIVER, halves_of, runs_imex
from kube_gpucheck.evidence.readings import need
from kube_gpucheck.model import Missing, MissingKind, Seen

KINDS = ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices")
CLASS: dict[str, Any] = {
    "metadata": {"name": "gpu.nvidia.com"},
    "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]},
}


def device(name: str, **body: Any) -> dict[str, Any]:
    """Return a device of v1."""
    return {"name": name, "attributes": {"type": {"string": "gpu"}, "uuid": {"string": f"GPU-{name}"}}, **body}


def published(on: str, *devices: dict[str, Any], generation: int = 1, count: int = 1, name: str = "") -> dict[str, Any]:
    """Return a ResourceSlice of a node."""
    pool = {"name": on, "generation": generation, "resourceSliceCount": count}
    spec = {"driver": GPU_DRIVER, "nodeName": on, "pool": pool, "devices": list(devices)}
    return {"metadata": {"name": name or f"{on}-{generation}"}, "spec": spec}


def claim(name: str, *taken: tuple[str, str], **request: Any) -> dict[str, Any]:
    """Return a ResourceClaim for GPUs, allocated where devices are given as pool and name."""
    asked = {"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", **request}}
    results = [{"request": "gpu", "driver": GPU_DRIVER, "pool": pool, "device": one} for pool, one in taken]
    status = {"allocation": {"devices": {"results": results}}} if taken else {}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"devices": {"requests": [asked]}},
        "status": status,
    }


def pod(name: str, *claims: str, **spec: Any) -> dict[str, Any]:
    """Return a pod that waits for claims."""
    named = [{"name": one, "resourceClaimName": one} for one in claims]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main"}], "resourceClaims": named, **spec},
        "status": {"phase": "Pending"},
    }


def cluster(nodes: tuple[str, ...] = ("gpu-0",), **kinds: list[dict[str, Any]]) -> Cluster:
    """Return a cluster in which these objects are listed."""
    files = {
        "cluster/nodes.json": listed(*(node(name) for name in nodes)),
        "cluster/daemonsets.apps.json": listed(),
        "cluster/pods.json": listed(*kinds.get("pods", [])),
        **{f"cluster/{kind}.resource.k8s.io.json": listed(*kinds.get(kind, [])) for kind in KINDS},
    }
    asked = {"api": [path.removeprefix("cluster/").removesuffix(".json") for path in files]}
    return Cluster(memory_bundle("t", {"bundle.json": msgspec.json.encode({**MANIFEST, "asked": asked}), **files}))


def lack(**kinds: Any) -> Shortage | None:
    """Return what the pod 'me' of a cluster lacks."""
    found = cluster(**{"deviceclasses": [CLASS], **kinds})
    me = next(one for one in need(found.pods) if one.name == "me")
    return need(shortage(me))


def test_only_a_pools_newest_generation_counts() -> None:
    old, new = published("gpu-0", device("a")), published("gpu-0", device("b"), generation=2)

    (pool,) = need(cluster(resourceslices=[old, new]).dra.pools)

    assert (pool.generation, [one.name for one in pool.devices], pool.problem) == (2, ["b"], None)


def test_a_pool_that_is_not_complete_offers_nothing_that_is_known() -> None:
    part = published("gpu-0", device("a"), count=2)
    found = cluster(resourceslices=[part])

    devices = found.dra.devices

    assert isinstance(devices, Missing)
    assert devices.reason.startswith(
        "of the pool gpu-0 of gpu.nvidia.com 1 of 2 ResourceSlices of generation 1 are there"
    )
    rest = published("gpu-0", device("b"), count=2, name="more")
    assert [one.name for one in need(cluster(resourceslices=[part, rest]).dra.devices)] == ["a", "b"]


def test_a_slice_that_cannot_be_read_may_be_the_one_that_counts() -> None:
    devices = cluster(resourceslices=[{"metadata": {"name": "odd"}, "spec": {"driver": GPU_DRIVER}}]).dra.devices

    assert isinstance(devices, Missing)
    assert devices.kind is MissingKind.UNPARSABLE


def test_slices_of_other_drivers_are_none_of_ours() -> None:
    other = published("gpu-0", device("a"))
    other["spec"]["driver"] = "gpu.example.com"
    found = cluster(resourceslices=[other])

    assert need(found.dra.devices) == ()
    assert need(found.dra.offering) == frozenset()


def test_v1beta1_keeps_the_attributes_in_a_field_of_its_own() -> None:
    document = msgspec.convert(
        published("gpu-0", {"name": "a", "basic": {"attributes": {"uuid": {"string": "GPU-1"}}}}),
        type=ResourceSliceDocument,
    )

    assert document.spec.devices is not None
    assert (document.spec.devices[0].body.attributes or {})["uuid"].text == "GPU-1"


@pytest.mark.parametrize(
    ("request_", "classes"),
    [
        ({"name": "r", "deviceClassName": "a"}, ["a"]),  # v1beta1
        ({"name": "r", "exactly": {"deviceClassName": "a"}}, ["a"]),  # v1beta2, v1
        (
            {
                "name": "r",
                "firstAvailable": [{"name": "x", "deviceClassName": "a"}, {"name": "y", "deviceClassName": "b"}],
            },
            ["a", "b"],
        ),
    ],
)
def test_a_request_has_its_form_by_the_version_of_the_api(request_: dict[str, Any], classes: list[str]) -> None:
    found = msgspec.convert(request_, type=DeviceRequest)

    assert [one.device_class_name for one in found.alternatives] == classes


@pytest.mark.parametrize(
    ("container", "half"),
    [
        ({"name": "x", "image": "r/p:1", "command": ["gpu-kubelet-plugin", "-v", "4"]}, GPU_DRIVER),
        (
            {
                "name": "x",
                "image": "r/p:1",
                "command": ["bash", "-c"],
                "args": ["if a; then b; fi\ngpu-kubelet-plugin -v 4"],
            },
            GPU_DRIVER,
        ),
        ({"name": "x", "image": "r/p:1", "command": ["compute-domain-kubelet-plugin"]}, DOMAIN_DRIVER),
        ({"name": "gpus", "image": "r/p:1", "command": ["sleep"]}, None),
    ],
)
def test_a_half_of_the_driver_is_told_by_its_program(container: dict[str, Any], half: str | None) -> None:
    spec = msgspec.convert({"containers": [container]}, type=PodSpec)

    assert halves_of(spec) == (frozenset({half}) if half else frozenset())


@pytest.mark.parametrize(("mode", "expected"), [(None, True), ("driverManaged", True), ("hostManaged", False)])
def test_the_driver_runs_imex_unless_it_is_told_to_use_the_hosts(mode: str | None, *, expected: bool) -> None:
    env = [{"name": "IMEX_MODE", "value": mode}] if mode else []
    made = {"name": "c", "command": ["compute-domain-kubelet-plugin"], "env": env}

    assert runs_imex(msgspec.convert({"containers": [made]}, type=PodSpec)) is expected


def test_pods_of_other_drivers_claims_are_not_asked_about() -> None:
    other = claim("nic")
    other["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = "dranet"
    found = cluster(pods=[pod("me", "nic"), pod("none")], resourceclaims=[other], deviceclasses=[CLASS])

    assert [need(claims_devices(one)) for one in need(found.pods)] == [False, False]
    assert need(pods_that_claim(found)) == ()


def test_a_class_of_ones_own_is_nvidias_by_its_selector() -> None:
    mine = {"metadata": {"name": "fast"}, "spec": CLASS["spec"]}
    wanted = claim("c", deviceClassName="fast")
    found = cluster(
        pods=[pod("me", "c")],
        resourceclaims=[wanted],
        deviceclasses=[mine],
        resourceslices=[published("gpu-0", device("a"))],
    )

    assert [one.name for one in need(pods_that_claim(found))] == ["me"]
    assert need(shortage(need(found.pods)[0])) == Shortage(
        Lack.NOTHING, "the claim asks for 1 device of class 'fast'; gpu-0 has 1 free"
    )


def test_a_claim_that_was_not_needed_is_none() -> None:
    me = pod("me")
    me["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    me["status"]["resourceClaimStatuses"] = [{"name": "gpu"}]

    assert need(claims_of(need(cluster(pods=[me]).pods)[0])) == ()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"resourceclaims": [claim("c", ("gpu-0", "a"))], "resourceslices": [published("gpu-0", device("a"))]}, None),
        ({"resourceclaims": [claim("c")], "resourceslices": []}, Lack.DEVICE),
        ({"resourceclaims": [claim("c")], "resourceslices": [published("gpu-0")]}, Lack.DEVICE),
        ({"resourceclaims": [claim("c", deviceClassName="other.nvidia.com")]}, Lack.CLASS),
        ({"resourceclaims": [claim("c", count=2)], "resourceslices": [published("gpu-0", device("a"))]}, Lack.NUMBER),
        (
            {
                "resourceclaims": [claim("c"), claim("d", ("gpu-0", "a"))],
                "resourceslices": [published("gpu-0", device("a"))],
            },
            Lack.USE,
        ),
        (
            {
                "resourceclaims": [claim("c", adminAccess=True), claim("d", ("gpu-0", "a"))],
                "resourceslices": [published("gpu-0", device("a"))],
            },
            Lack.NOTHING,
        ),
        (
            {
                "resourceclaims": [claim("c", allocationMode="All")],
                "resourceslices": [published("gpu-0", device("a"), device("b"))],
            },
            Lack.NOTHING,
        ),
        (
            {
                "resourceclaims": [claim("c", allocationMode="All"), claim("d", ("gpu-0", "a"))],
                "resourceslices": [published("gpu-0", device("a"), device("b"))],
            },
            Lack.USE,
        ),
        (
            {
                "resourceclaims": [claim("c")],
                "resourceslices": [published("gpu-0", device("a", taints=[{"key": "k", "effect": "NoSchedule"}]))],
            },
            Lack.TAINT,
        ),
        (
            {
                "resourceclaims": [claim("c")],
                "resourceslices": [published("gpu-0", device("a", taints=[{"key": "k", "effect": "None"}]))],
            },
            Lack.NOTHING,
        ),
        (
            {
                "resourceclaims": [claim("c", tolerations=[{"operator": "Exists"}])],
                "resourceslices": [published("gpu-0", device("a", taints=[{"key": "k", "effect": "NoExecute"}]))],
            },
            Lack.NOTHING,
        ),
        (
            {
                "resourceclaims": [claim("c")],
                "resourceslices": [published("gpu-0", device("a", consumesCounters=[{"counterSet": "x"}]))],
            },
            Lack.UNDECIDED,
        ),
    ],
)
def test_what_a_claim_lacks(kinds: dict[str, Any], expected: Lack | None) -> None:
    found = lack(pods=[pod("me", "c")], **kinds)

    assert (found.lack if found else None) is expected


def test_claims_for_the_same_are_counted_together() -> None:
    claims = [claim("c"), claim("d")]
    one, two = published("gpu-0", device("a")), published("gpu-0", device("a"), device("b"))

    few = lack(pods=[pod("me", "c", "d")], resourceclaims=claims, resourceslices=[one])
    enough = lack(pods=[pod("me", "c", "d")], resourceclaims=claims, resourceslices=[two])

    assert few == Shortage(Lack.NUMBER, "the claim asks for 2 devices of class 'gpu.nvidia.com'; there are 1 on gpu-0")
    assert enough is not None
    assert enough.lack is Lack.NOTHING


def test_the_first_alternative_that_can_be_had_is_enough() -> None:
    asked = claim("c")
    options = [
        {"name": "x", "deviceClassName": "gpu.nvidia.com", "count": 4},
        {"name": "y", "deviceClassName": "gpu.nvidia.com", "count": 1},
    ]
    asked["spec"]["devices"]["requests"] = [{"name": "gpu", "firstAvailable": options}]

    found = lack(pods=[pod("me", "c")], resourceclaims=[asked], resourceslices=[published("gpu-0", device("a"))])

    assert found is not None
    assert found.lack is Lack.NOTHING


def test_the_node_with_the_devices_must_take_the_pod() -> None:
    slices = [published("gpu-0", device("a"))]

    found = lack(pods=[pod("me", "c", nodeSelector={"zone": "b"})], resourceclaims=[claim("c")], resourceslices=slices)

    why = "on gpu-0 nodeSelector needs zone=b; the node has no zone"
    assert found == Shortage(Lack.NODE, f"the claim asks for 1 device of class 'gpu.nvidia.com'; {why}", ("zone",))


def test_who_holds_the_devices_is_named() -> None:
    holder = claim("d", ("gpu-0", "a"))
    holder["status"]["reservedFor"] = [{"resource": "pods", "name": "other", "uid": "1"}]

    found = lack(
        pods=[pod("me", "c")], resourceclaims=[claim("c"), holder], resourceslices=[published("gpu-0", device("a"))]
    )

    assert found is not None
    assert found.holders == ("claim default/d of pod default/other",)


def test_the_extended_resource_leads_to_its_class() -> None:
    mine = {"metadata": {"name": "gpu.nvidia.com"}, "spec": {**CLASS["spec"], "extendedResourceName": "nvidia.com/gpu"}}

    assert list(need(cluster(deviceclasses=[mine]).dra.extended)) == ["nvidia.com/gpu"]


def test_nothing_is_made_up_where_nothing_was_asked() -> None:
    dra = suite.LIBRARY.build("recorded/healthy")
    found = Cluster(dra).dra

    assert isinstance(found.slices, Missing)
    assert found.plugins == Seen(())
