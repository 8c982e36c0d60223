"""Whether waiting longer can change a result."""

import datetime

import pytest

from kube_gpucheck import diagnose
from kube_gpucheck.cli.sources import catalogue
from kube_gpucheck.diagnose.conclusion import Choice, conclude
from kube_gpucheck.diagnose.outlook import Outlook, outlook
from kube_gpucheck.evidence import Bundle, Cluster
from kube_gpucheck.evidence.bundle import memory_bundle
from kube_gpucheck.model import Severity
from suite import LIBRARY, judge_all, without

MINUTE = datetime.timedelta(minutes=1)


def of(bundle: Bundle) -> Outlook:
    cluster = Cluster(bundle)
    results = judge_all(cluster)
    diagnosis = diagnose.diagnose(results, cluster, catalogue(), fail_on=Severity.MAJOR)
    run = conclude(
        results, cluster, diagnosis, Choice(), finished=datetime.datetime.now(datetime.timezone.utc), tool_version="0"
    )
    return outlook(run, cluster)


def later(name: str, by: datetime.timedelta) -> Bundle:
    """Return a bundle as it would be judged later, its nodes' leases left where they are."""
    bundle = LIBRARY.build(name)
    files = {path: bundle.store.read(path) or b"" for path in bundle.store.paths()}
    at = bundle.gathered_at
    moved = (at + by).isoformat().replace("+00:00", "Z").encode()
    for form in (at.isoformat().replace("+00:00", "Z"), at.isoformat()):
        files["bundle.json"] = files["bundle.json"].replace(
            b'"gathered_at": "' + form.encode(), b'"gathered_at": "' + moved
        )
    made = memory_bundle(name, files)
    assert made.gathered_at == at + by
    return made


def test_what_passes_is_final() -> None:
    assert of(LIBRARY.build("complete")) == Outlook(final=True, reason="everything that was asked for passes")


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("tutorial/00-bare", "driver-not-installed"),
        ("tutorial/06-plugin-undesired", "nfd-label-missing"),
        ("recorded/containerd-not-restarted", "runtime-configured-but-not-reloaded"),
        ("recorded/no-runtimeclass", "runtimeclass-missing"),
    ],
)
def test_a_fault_that_nothing_under_way_can_heal_is_final_and_named(name: str, cause: str) -> None:
    now = of(LIBRARY.build(name))
    assert now.final
    assert now.reason.startswith(f"no waiting heals {cause} (")


def test_what_was_started_a_moment_ago_is_waited_for() -> None:
    now = of(LIBRARY.build("recorded/plugin-image-pull-fails"))
    assert now == Outlook(
        final=False, waits_for=("daemonset nvidia-device-plugin/nvidia-device-plugin: it was created a moment ago",)
    )


def test_and_no_longer_than_it_may_take() -> None:
    now = of(later("recorded/plugin-image-pull-fails", 3 * MINUTE))
    assert now.final
    assert now.reason.startswith("no waiting heals ")


def test_what_is_gone_from_the_evidence_is_no_reason_to_call_it_settled() -> None:
    now = of(without(LIBRARY.build("tutorial/06-plugin-undesired"), "cluster/pods.json"))
    assert not now.final
    assert now.waits_for[0].startswith("an answer of the API server: ")
