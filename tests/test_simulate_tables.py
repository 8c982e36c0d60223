"""Tables: the columns and cells that a real API server made, and those of states that no recording shows."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.evidence.bundle import open_bundle
from kube_gpucheck.simulate.printers import human_duration, printer_of
from kube_gpucheck.simulate.tables import table, table_version
from suite import FIXTURES

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
MINUTE_AGO = "2025-12-31T23:59:00Z"
RECORDINGS = sorted(path.parents[1] for path in (FIXTURES / "bundles/recorded").glob("*/extra/get.txt"))
SHOWN = {
    "nodes": "node/",
    "pods": "pod/",
    "daemonsets.apps": "daemonset.apps/",
    "runtimeclasses.node.k8s.io": "runtimeclass.node.k8s.io/",
}
ALL_SHOWN_EARLIER_S = 5
"""A recording is made in this time: `kubectl get` first, the evidence after it."""


def cells(kind: str, document: dict[str, Any]) -> list[Any]:
    (row,) = table(kind, [document], now=NOW)["rows"]
    return list(row["cells"])


def recorded(bundle: Path, kind: str, prefix: str, now: datetime.datetime) -> Iterator[tuple[list[str], list[str]]]:
    """Yield for each object of a kind the cells that are made, and those that kubectl printed."""
    printed = (bundle / "extra/get.txt").read_text()
    for row in table(kind, json.loads((bundle / f"cluster/{kind}.json").read_bytes())["items"], now=now)["rows"]:
        made = [str(cell) for cell in row["cells"]]
        line = re.search(rf"(?:^|^\S+ +|^ +){re.escape(prefix + made[0])} .*$", printed, re.MULTILINE)
        if line is not None:
            shown = re.split(r" {2,}", line[0].strip())
            yield made, [made[0], *shown[shown.index(prefix + made[0]) + 1 :]]


@pytest.mark.parametrize("bundle", RECORDINGS, ids=lambda path: path.name)
def test_cells_are_those_that_kubectl_printed_of_the_recorded_cluster(bundle: Path) -> None:
    """Ages are counted from one moment, which lies a little before the evidence was read."""
    gathered = open_bundle(bundle).gathered_at
    kinds = [kind for kind in SHOWN if (bundle / f"cluster/{kind}.json").exists()]
    for kind in kinds:
        attempts = [
            list(recorded(bundle, kind, SHOWN[kind], gathered - datetime.timedelta(seconds=seconds)))
            for seconds in range(ALL_SHOWN_EARLIER_S)
        ]
        assert any(all(made == shown for made, shown in attempt) for attempt in attempts), attempts[0]
    assert kinds


def test_the_recordings_show_enough_to_compare() -> None:
    compared = sum(
        len(list(recorded(bundle, kind, prefix, NOW)))
        for bundle in RECORDINGS
        for kind, prefix in SHOWN.items()
        if (bundle / f"cluster/{kind}.json").exists()
    )

    assert len(RECORDINGS) >= 26
    assert compared > 150


@pytest.mark.parametrize("bundle", RECORDINGS, ids=lambda path: path.name)
def test_columns_are_those_that_kubectl_printed_of_the_recorded_cluster(bundle: Path) -> None:
    """Of events kubectl was asked for the narrow form."""
    wide = {tuple(one.name.upper() for one in printer_of(kind).columns) for kind in SHOWN}
    narrow = tuple(one.name.upper() for one in printer_of("events").columns if not one.priority)
    lines = [re.split(r" {2,}", line) for line in (bundle / "extra/get.txt").read_text().splitlines() if line.isupper()]

    assert {tuple(line[line[0] == "NAMESPACE" :]) for line in lines} <= {*wide, narrow}
    assert len(lines) >= 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 + 60, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400, "2y"),
        ((2 * 365 + 3) * 86400, "2y3d"),
        (9 * 365 * 86400 + 86400, "9y"),
    ],
)
def test_ages_are_shown_as_kubectl_shows_them(seconds: int, text: str) -> None:
    assert human_duration(datetime.timedelta(seconds=seconds)) == text


@given(seconds=st.integers(min_value=0, max_value=10**9), more=st.integers(min_value=0, max_value=10**8))
def test_an_age_never_shows_more_than_it_is(seconds: int, more: int) -> None:
    assert age_s(human_duration(datetime.timedelta(seconds=seconds))) <= seconds
    assert (
        age_s(human_duration(datetime.timedelta(seconds=seconds)))
        <= age_s(human_duration(datetime.timedelta(seconds=seconds + more))) + 86400 * 365
    )


def age_s(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhdy])", text))


def a_pod(*statuses: dict[str, Any], spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "creationTimestamp": MINUTE_AGO},
        "spec": {"containers": [{"name": f"c{number}"} for number in range(max(1, len(statuses)))], **(spec or {})},
        "status": {"phase": "Running", "containerStatuses": list(statuses), **status},
    }


RUNNING = {"name": "c0", "ready": True, "restartCount": 0, "state": {"running": {}}}
COMPLETED = {"name": "c1", "ready": False, "restartCount": 0, "state": {"terminated": {"reason": "Completed"}}}
INIT = {"initContainers": [{"name": "i0"}, {"name": "i1"}]}
SIDECAR = {"initContainers": [{"name": "s", "restartPolicy": "Always"}]}
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("pod", "ready", "status", "restarts"),
    [
        (a_pod(RUNNING), "1/1", "Running", "0"),
        (a_pod(phase="Pending"), "0/1", "Pending", "0"),
        (a_pod(phase="Failed", reason="Evicted"), "0/1", "Evicted", "0"),
        (
            a_pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4}),
            "0/1",
            "CrashLoopBackOff",
            "4",
        ),
        (
            a_pod(
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "restartCount": 4,
                    "lastState": {"terminated": {"finishedAt": "2025-12-31T23:50:00Z"}},
                }
            ),
            "0/1",
            "CrashLoopBackOff",
            "4 (10m ago)",
        ),
        (a_pod({"state": {"terminated": {"exitCode": 3}}}), "0/1", "ExitCode:3", "0"),
        (a_pod({"state": {"terminated": {"signal": 9}}}), "0/1", "Signal:9", "0"),
        (a_pod(RUNNING, COMPLETED, conditions=READY), "1/2", "Running", "0"),
        (a_pod(RUNNING, COMPLETED), "1/2", "NotReady", "0"),
        (a_pod(COMPLETED, RUNNING), "1/2", "NotReady", "0"),
        (a_pod(COMPLETED, RUNNING, conditions=READY), "1/2", "Running", "0"),
        (a_pod(spec=INIT, initContainerStatuses=[{"name": "i0", "state": {"running": {}}}]), "0/1", "Init:0/2", "0"),
        (
            a_pod(
                spec=INIT,
                initContainerStatuses=[
                    {"name": "i0", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "i1", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                ],
            ),
            "0/1",
            "Init:CrashLoopBackOff",
            "2",
        ),
        (
            a_pod(spec=INIT, initContainerStatuses=[{"name": "i0", "state": {"terminated": {"exitCode": 1}}}]),
            "0/1",
            "Init:ExitCode:1",
            "0",
        ),
        (
            a_pod(
                RUNNING,
                spec=SIDECAR,
                initContainerStatuses=[{"name": "s", "started": True, "ready": True, "restartCount": 1, "state": {}}],
            ),
            "2/2",
            "Running",
            "1",
        ),
        (
            a_pod(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
            "0/1",
            "SchedulingGated",
            "0",
        ),
    ],
)
def test_a_pod_s_status_is_what_kubectl_calls_it(pod: dict[str, Any], ready: str, status: str, restarts: str) -> None:
    assert cells("pods", pod)[:5] == ["p", ready, status, restarts, "60s"]


@pytest.mark.parametrize(
    ("phase", "reason", "shown"),
    [("Running", "", "Terminating"), ("Running", "NodeLost", "Unknown"), ("Succeeded", "", "Succeeded")],
)
def test_a_pod_that_is_being_deleted_says_so_unless_it_has_ended(phase: str, reason: str, shown: str) -> None:
    pod = a_pod(phase=phase, reason=reason)
    pod["metadata"]["deletionTimestamp"] = MINUTE_AGO

    assert cells("pods", pod)[2] == shown


def test_an_ended_pod_s_row_says_so() -> None:
    (row,) = table("pods", [a_pod(phase="Succeeded")], now=NOW)["rows"]

    assert row["conditions"][0]["reason"] == "Succeeded"


def test_readiness_gates_are_counted() -> None:
    pod = a_pod(spec={"readinessGates": [{"conditionType": "x"}, {"conditionType": "Ready"}]}, conditions=READY)

    assert cells("pods", pod)[-1] == "1/2"


META = {"name": "x", "creationTimestamp": MINUTE_AGO}


@pytest.mark.parametrize(
    ("kind", "document", "expected"),
    [
        ("nodes", {"metadata": META, "spec": {"unschedulable": True}}, ["x", "Unknown,SchedulingDisabled", "<none>"]),
        (
            "nodes",
            {
                "metadata": {
                    **META,
                    "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "gpu", "other": "1"},
                },
                "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
            },
            ["x", "NotReady", "gpu,worker", "60s"],
        ),
        (
            "jobs.batch",
            {"metadata": META, "spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": MINUTE_AGO}},
            ["x", "Running", "1/3", "60s", "60s"],
        ),
        ("jobs.batch", {"metadata": META, "spec": {"parallelism": 4}}, ["x", "Running", "0/1 of 4", ""]),
        (
            "jobs.batch",
            {"metadata": META, "status": {"conditions": [{"type": "Failed", "status": "True"}]}},
            ["x", "Failed", "0/1"],
        ),
        (
            "deployments.apps",
            {"metadata": META, "spec": {"replicas": 2}, "status": {"readyReplicas": 1, "availableReplicas": 1}},
            ["x", "1/2", 0, 1, "60s"],
        ),
        ("replicasets.apps", {"metadata": META, "spec": {"replicas": 0}}, ["x", 0, 0, 0, "60s", "", "", "<none>"]),
        ("statefulsets.apps", {"metadata": META}, ["x", "0/1", "60s"]),
        (
            "daemonsets.apps",
            {
                "metadata": META,
                "spec": {
                    "template": {"spec": {"nodeSelector": {"b": "1", "a": "2"}, "containers": []}},
                    "selector": {
                        "matchLabels": {"m": "1"},
                        "matchExpressions": [
                            {"key": "e", "operator": "In", "values": ["z", "y"]},
                            {"key": "n", "operator": "DoesNotExist"},
                        ],
                    },
                },
            },
            ["x", 0, 0, 0, 0, 0, "a=2,b=1", "60s", "", "", "e in (y,z),m=1,!n"],
        ),
        (
            "services",
            {
                "metadata": META,
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIP": "10.0.0.1",
                    "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                },
                "status": {"loadBalancer": {"ingress": [{"hostname": "b"}, {"ip": "1.2.3.4"}]}},
            },
            ["x", "LoadBalancer", "10.0.0.1", "1.2.3.4,b", "80:30000/TCP,53/UDP", "60s", "<none>"],
        ),
        (
            "services",
            {"metadata": META, "spec": {"type": "LoadBalancer"}},
            ["x", "LoadBalancer", "<none>", "<pending>"],
        ),
        (
            "services",
            {"metadata": META, "spec": {"type": "ExternalName", "externalName": "a.example"}},
            ["x", "ExternalName", "<none>", "a.example", "<none>"],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {
                "metadata": META,
                "addressType": "IPv4",
                "ports": [{"port": 9400}, {"name": "web"}],
                "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c", "d", "e"]}],
            },
            ["x", "IPv4", "9400,web", "a,b,c + 2 more...", "60s"],
        ),
        ("configmaps", {"metadata": META, "data": {"a": "1"}, "binaryData": {"b": ""}}, ["x", 2, "60s"]),
        ("namespaces", {"metadata": META, "status": {"phase": "Active"}}, ["x", "Active", "60s"]),
        ("serviceaccounts", {"metadata": META, "secrets": [{}]}, ["x", 1, "60s"]),
        ("leases.coordination.k8s.io", {"metadata": META, "spec": {"holderIdentity": "n"}}, ["x", "n", "60s"]),
        (
            "priorityclasses.scheduling.k8s.io",
            {"metadata": META, "value": 7, "preemptionPolicy": "Never"},
            ["x", 7, False, "60s", "Never"],
        ),
        (
            "resourcequotas",
            {
                "metadata": META,
                "status": {
                    "hard": {"limits.cpu": "2", "requests.nvidia.com/gpu": "4", "pods": "9"},
                    "used": {"pods": "1", "requests.nvidia.com/gpu": "3"},
                },
            },
            ["x", "pods: 1/9, requests.nvidia.com/gpu: 3/4", "limits.cpu: 0/2", "60s"],
        ),
        ("limitranges", {"metadata": META}, ["x", MINUTE_AGO]),
        ("clusterpolicies.nvidia.com", {"metadata": META}, ["x", "60s"]),
        (
            "controllerrevisions.apps",
            {
                "metadata": {
                    **META,
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": True}
                    ],
                },
                "revision": 3,
            },
            ["x", "daemonset.apps/d", 3, "60s"],
        ),
        ("resourceclaims.resource.k8s.io", {"metadata": META}, ["x", "pending", "60s"]),
        (
            "resourceclaims.resource.k8s.io",
            {"metadata": META, "status": {"allocation": {}, "reservedFor": [{}]}},
            ["x", "allocated,reserved", "60s"],
        ),
        (
            "resourceslices.resource.k8s.io",
            {"metadata": META, "spec": {"nodeName": "n", "driver": "gpu.nvidia.com", "pool": {"name": "n"}}},
            ["x", "n", "gpu.nvidia.com", "n", "60s"],
        ),
        ("deviceclasses.resource.k8s.io", {"metadata": META}, ["x", "60s"]),
        (
            "events",
            {
                "metadata": META,
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
                "lastTimestamp": MINUTE_AGO,
                "firstTimestamp": "2025-12-31T23:00:00Z",
                "count": 6,
                "type": "Warning",
                "reason": "Failed",
                "message": " m\n",
                "source": {"component": "kubelet", "host": "n"},
            },
            ["60s", "Warning", "Failed", "pod/p", "spec.containers{c}", "kubelet, n", "m", "60m", 6, "x"],
        ),
        (
            "events.events.k8s.io",
            {
                "metadata": META,
                "regarding": {"kind": "Node"},
                "eventTime": "2025-12-31T23:59:30.123456Z",
                "note": "n",
                "reportingController": "c",
            },
            ["29s", "", "", "node", "", "c", "n", "29s", 1, "x"],
        ),
    ],
)
def test_a_kind_s_cells_are_those_of_upstream_s_printer(
    kind: str, document: dict[str, Any], expected: list[Any]
) -> None:
    made = cells(kind, document)

    assert made[: len(expected)] == expected
    assert len(made) == len(printer_of(kind).columns)


KINDS = [
    *SHOWN,
    "jobs.batch",
    "events",
    "services",
    "resourcequotas",
    "controllerrevisions.apps",
    "endpointslices.discovery.k8s.io",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["name", "labels", "conditions", "containers", "containerStatuses", "template", "ports", "hard", "selector"]


@given(
    kind=st.sampled_from(KINDS),
    document=st.dictionaries(
        st.sampled_from(["metadata", "spec", "status", "endpoints", "involvedObject"]),
        JSON | st.dictionaries(st.sampled_from(FIELDS), JSON),
    ),
)
def test_whatever_an_object_is_it_has_a_cell_for_each_column(kind: str, document: dict[str, Any]) -> None:
    made = cells(kind, document)

    assert len(made) == len(printer_of(kind).columns)
    assert all(isinstance(cell, str | int | bool) for cell in made)


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            "v1",
        ),
        ("application/json;as=Table;g=meta.k8s.io;v=v1beta1", "v1beta1"),
        ("application/json;as=Table;g=meta.k8s.io;v=v9, application/json", None),
        ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", None),
        ("application/vnd.kubernetes.protobuf, application/json", None),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", None),
        ("", None),
        (";;;=,=", None),
    ],
)
def test_a_table_is_sent_to_those_who_prefer_one(accept: str, version: str | None) -> None:
    assert table_version(accept) == version


@pytest.mark.parametrize(
    ("include", "carried"),
    [
        ("None", None),
        ("", {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META}),
        ("Metadata", {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META}),
        ("Object", {"metadata": META, "handler": "nvidia"}),
    ],
)
def test_a_row_carries_as_much_of_its_object_as_was_asked_for(include: str, carried: Any) -> None:
    made = table("runtimeclasses.node.k8s.io", [{"metadata": META, "handler": "nvidia"}], now=NOW, include=include)

    assert made["rows"][0]["object"] == carried
    assert made["columnDefinitions"][0] == {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "",
        "priority": 0,
    }
