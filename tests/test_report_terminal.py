import re
from typing import Final

import msgspec
import pytest
from rich.cells import cell_len

from kube_gpucheck.model import (
    Candidate,
    Finding,
    GpuNodes,
    Layer,
    MissingEvidence,
    MissingKind,
    Outcome,
    Run,
    Severity,
    Subject,
    SubjectKind,
    Verdict,
)
from kube_gpucheck.report.terminal import render
from run_builders import (
    HELM_UPGRADE,
    cause,
    check,
    fault,
    findings_of,
    node,
    other,
    passing,
    result,
    run_of,
    undesired_plugin,
)

CAPACITY: Final = check("PLG-005")
HEALTHY: Final = passing("CLU", 2, Layer.CLUSTER)


def shown(run: Run, *, width: int = 100, colour: bool = False, verbosity: int = 0, quiet: bool = False) -> str:
    return render(run, width=width, colour=colour, verbosity=verbosity, quiet=quiet)


def words(run: Run, *, verbosity: int = 0, quiet: bool = False) -> str:
    """Return the report with every run of white space as one space: what it says, however it is laid out."""
    return " ".join(shown(run, verbosity=verbosity, quiet=quiet).split())


def crashed() -> Run:
    traceback = "Traceback (most recent call last):\n  File 'x.py'\n\x1b[31mKeyError: 'x'\x1b[0m\n"
    broken = result(CAPACITY, other(CAPACITY, Outcome.BROKEN, reason=traceback), passed=[node("gpu-1")])
    return run_of(*HEALTHY, broken)


def four_thousand_nodes() -> Run:
    nodes = [node(f"gpu-{number:04}") for number in range(4_000)]
    driver = check("DRV-004", Layer.DRIVER, title="Module and libraries have one version.")
    results = (
        result(driver, *[fault(driver, each, seen="the module is 550, the library is 570") for each in nodes]),
        result(CAPACITY, *[fault(CAPACITY, each) for each in nodes]),
    )
    first = cause(
        "driver-library-version-mismatch",
        layer=Layer.DRIVER,
        subjects=tuple(nodes),
        gpu_nodes=tuple(each.name for each in nodes),
    )
    findings = tuple(Finding(one.check, one.judgement, cause=first.id) for one in findings_of(results))
    return run_of(*results, causes=(first,), findings=findings, nodes=GpuNodes(4_000, 4_000))


def test_the_example_of_the_design_reads_so() -> None:
    assert (
        shown(undesired_plugin(), width=120)
        == """\
gpucheck · cluster rke2 (simulated) · 1 of 1 GPU node judged · 50 of 53 checks judged

✗ GPU work cannot run here.

  1  nfd-label-missing · critical · on 1 of 1 GPU nodes
     No node carries the label that the device plugin's DaemonSet selects.
     on     nvidia-device-plugin/nvdp-nvidia-device-plugin
     seen   nvidia-device-plugin/nvdp-nvidia-device-plugin wants 0 pods; 1 node has a GPU
            its affinity needs feature.node.kubernetes.io/pci-10de.present=true; dxlab-nb-00 has no such label
            no Node Feature Discovery is installed
     do     helm upgrade nvdp nvdp/nvidia-device-plugin -n nvidia-device-plugin --reuse-values --set gfd.enabled=true
     then   gpucheck run --layer discovery --wait 5m

  cluster       ✓ 7 of 7 pass
  driver        ✓ 19 of 19 pass
  runtime       ✓ 11 of 11 pass
  runtimeclass  ✓ 4 of 4 pass
  discovery     ✗ 4 of 6 pass, 2 faults, consequences of 1
  deviceplugin  ✗ 0 of 3 pass, 3 faults, consequences of 1
  workload      · not asked: add --active
  telemetry     · not applicable: no dcgm-exporter, no ServiceMonitor, no Prometheus
  operator      · not applicable: no ClusterPolicy
"""
    )


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("build", [undesired_plugin, crashed, four_thousand_nodes])
def test_no_line_is_wider_than_the_terminal_or_ends_in_a_space(build: object, width: int) -> None:
    assert callable(build)
    for line in shown(build(), width=width, verbosity=1).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


def test_two_blank_lines_never_follow_each_other() -> None:
    assert "\n\n\n" not in shown(four_thousand_nodes(), verbosity=1)


def test_a_command_that_is_broken_can_still_be_pasted() -> None:
    report = shown(undesired_plugin(), width=80)

    assert HELM_UPGRADE not in report
    (pasted,) = re.findall(r"helm(?:.*\\\n)*.*", report)
    assert re.sub(r"\\\n\s+", "", pasted) == HELM_UPGRADE


def test_a_quoted_command_stays_on_one_line_where_it_fits() -> None:
    step = "once the driver's pods are Ready on each of the nodes, run 'gpucheck run --layer driver' again"
    run = run_of(result(CAPACITY, fault(CAPACITY)), causes=(cause(remedy=(step,)),))

    assert re.search(r"^ +'gpucheck run --layer driver' again$", shown(run, width=80), re.MULTILINE)


def test_a_path_a_little_too_long_stays_whole_to_be_copied() -> None:
    path = "/var/lib/rancher/rke2/agent/etc/containerd/" + "x" * 30
    run = run_of(result(CAPACITY, fault(CAPACITY, seen=f"{path} has no runtime 'nvidia'")))

    assert f"{path}\n" in shown(run, width=60)


def test_there_is_no_escape_code_without_colour() -> None:
    assert "\x1b" not in shown(undesired_plugin(), verbosity=1)


def test_colour_changes_no_word() -> None:
    plain, coloured = shown(undesired_plugin()), shown(undesired_plugin(), colour=True)

    assert "\x1b[1;31m✗" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown(undesired_plugin(), colour=True)

    for name, value in {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "20", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)

    assert shown(undesired_plugin(), colour=True) == before


@pytest.mark.parametrize("quiet", [False, True])
def test_a_simulated_run_says_so(*, quiet: bool) -> None:
    real = msgspec.structs.replace(
        undesired_plugin(), info=msgspec.structs.replace(undesired_plugin().info, simulated=False)
    )

    assert "simulated" in shown(undesired_plugin(), quiet=quiet)
    assert "simulated" not in shown(real, quiet=quiet)


def test_one_cause_on_four_thousand_nodes_is_one_entry() -> None:
    report = shown(four_thousand_nodes())

    assert "driver-library-version-mismatch · critical · on 4,000 of 4,000 GPU nodes" in report
    assert "on     gpu-0000, gpu-0001, gpu-0002 and 3,997 more" in report
    assert len(report.splitlines()) < 20


def test_quiet_is_the_verdict_and_the_first_cause() -> None:
    second = cause("driver-too-old", layer=Layer.DRIVER)
    run = run_of(result(CAPACITY, fault(CAPACITY)), causes=(cause(), second))

    report = shown(run, quiet=True)

    assert report.startswith("✗ GPU work cannot run here. (simulated)\n\n  1  nfd-label-missing")
    assert "driver-too-old" not in report
    assert "deviceplugin" not in report.replace("nvidia-device-plugin", "")


def test_without_a_known_cause_the_first_root_finding_is_shown() -> None:
    run = run_of(
        result(CAPACITY, fault(CAPACITY, node("gpu-3")), passed=[node("gpu-0"), node("gpu-1")]),
        candidates=(Candidate("gpu-fell-off-bus", "A GPU fell off the bus.", (), ("the kernel log of gpu-3",)),),
    )

    assert (
        "No known cause explains this. The first root finding: "
        "PLG-005 · critical · on 1 of 3 nodes: gpu-3 "
        "Capacity is what the hardware and the plugin's effective configuration imply. "
        "seen capacity is 7, expected 8: 8 GPU x 1 "
        "means the device plugin started before the driver listed every GPU "
        "do delete the node's device-plugin pod; once it is Ready, run 'gpucheck run -k PLG-005' "
        "maybe gpu-fell-off-bus: not known is the kernel log of gpu-3 "
        "deviceplugin ✗ 0 of 1 pass, 1 fault"
    ) in words(run)


def test_a_fault_without_a_cause_is_unfolded_under_its_layer() -> None:
    width = check("DRV-012", Layer.DRIVER, title="The link trains at its width.", severity=Severity.MAJOR)
    gpus = [Subject(SubjectKind.GPU, "0000:17:00.0", node=f"gpu-{number}") for number in range(6)]
    faults = [fault(width, gpu, seen=f"width is x{number}") for number, gpu in enumerate(gpus)]
    results = (result(CAPACITY, fault(CAPACITY)), result(width, *faults))
    findings = tuple(
        Finding(one.check, one.judgement, cause="nfd-label-missing" if one.check is CAPACITY else None)
        for one in findings_of(results)
    )

    report = words(run_of(*results, causes=(cause(),), findings=findings))

    assert (
        "driver ✗ 0 of 1 pass, 1 fault "
        "DRV-012 · major · on 6 of 6 GPUs: gpu-0/0000:17:00.0, gpu-1/0000:17:00.0, gpu-2/0000:17:00.0 and 3 more "
        "The link trains at its width. "
        "seen gpu-0/0000:17:00.0: width is x0 gpu-1/0000:17:00.0: width is x1 gpu-2/0000:17:00.0: width is x2 "
        "and 3 more that differ"
    ) in report
    assert "deviceplugin ✗ 0 of 1 pass, 1 fault, a consequence of 1" in report


def test_a_fault_that_other_faults_explain_is_folded_under_them() -> None:
    infos = [check("PLG-003"), check("PLG-005"), check("PLG-006")]
    findings = (
        Finding(infos[0], fault(infos[0]), cause="nfd-label-missing"),
        Finding(infos[1], fault(infos[1]), consequence_of=("PLG-003",)),
        Finding(infos[2], fault(infos[2]), consequence_of=("PLG-003",), partly=True),
    )
    run = run_of(*[result(info, fault(info)) for info in infos], causes=(cause(),), findings=findings)

    report = words(run)

    assert "3 faults (1 a consequence of 1, 1 a consequence of PLG-003) PLG-006 · critical" in report
    assert "note partly a consequence of PLG-003" in report
    assert "PLG-005 · critical" not in report


def test_lesser_causes_and_faults_come_after_as_also_seen() -> None:
    persistence = check("DRV-008", Layer.DRIVER, severity=Severity.MINOR)
    lesser = cause("driver-out-of-support", severity=Severity.MINOR, gpu_nodes=())
    run = run_of(*HEALTHY, result(persistence, fault(persistence, seen="persistence mode is off")), causes=(lesser,))

    report = words(run)

    assert run.verdict is Verdict.CONFORMS
    assert "✓ Nothing was found that keeps GPU work from running; 1 check with a fault below major." in report
    assert "driver ~ 0 of 1 pass, 1 lesser fault" in report
    assert "Also seen, below major 1 driver-out-of-support · minor · on 1 DaemonSet" in report
    assert "DRV-008 · minor · on dxlab-nb-00 seen persistence mode is off" in report


def test_many_causes_are_shown_in_full_only_when_asked() -> None:
    run = run_of(result(CAPACITY, fault(CAPACITY)), causes=tuple(cause(f"cause-{number}") for number in range(1, 8)))

    assert [shown(run, verbosity=verbosity).count("then   ") for verbosity in (0, 1)] == [5, 7]
    assert "  7  cause-7 · critical" in shown(run)


def test_a_layer_in_which_no_check_ran_is_absent() -> None:
    report = shown(run_of(*HEALTHY, not_installed={Layer.TELEMETRY: "no exporter"}))

    assert "cluster       ✓ 2 of 2 pass" in report
    assert "telemetry" not in report
    assert "driver" not in report


def test_a_layer_that_does_not_apply_says_why() -> None:
    info = check("DRA-001", Layer.DRA)
    nothing = result(info, other(info, Outcome.NOT_APPLICABLE, reason="no ResourceSlice is served"))

    assert "dra           · not applicable: no ResourceSlice is served" in shown(run_of(*HEALTHY, nothing))


def test_a_layer_asked_for_in_part_is_named_with_the_option() -> None:
    left_out = check("CLU-006", Layer.CLUSTER)
    run = run_of(*HEALTHY, result(left_out, other(left_out, Outcome.NOT_ASKED, option="--probe")))

    assert "cluster ✓ 2 of 2 pass Not asked cluster · 1 of 3 checks: add --probe" in words(run)


@pytest.mark.parametrize("quiet", [False, True])
def test_what_could_not_be_judged_is_said_with_its_reason(*, quiet: bool) -> None:
    infos = [check(f"RTM-{number:03}", Layer.RUNTIME) for number in range(1, 9)]
    unknown = [
        result(info, other(info, Outcome.UNKNOWN, node("gpu-5"), reason="host: EACCES"), passed=[node("gpu-0")])
        for info in infos
    ]

    report = words(run_of(*HEALTHY, *unknown), quiet=quiet)

    assert "? It is not known whether GPU work runs here: 8 of 10 checks could not be judged." in report
    assert (
        "Could not be judged ? host: EACCES "
        "8 checks: RTM-001, RTM-002, RTM-003, RTM-004, RTM-005, RTM-006 and 2 more · on gpu-5"
    ) in report


def test_unknown_on_some_subjects_is_told_from_unknown_on_all() -> None:
    infos = [check("RTM-001", Layer.RUNTIME), check("RTM-002", Layer.RUNTIME)]
    run = run_of(
        result(infos[0], other(infos[0], Outcome.UNKNOWN), passed=[node("gpu-0")]),
        result(infos[1], other(infos[1], Outcome.UNKNOWN)),
    )

    assert "runtime       ? 0 of 2 pass, 1 unknown in part, 1 unknown" in shown(run)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (run_of(*HEALTHY), "✓ Nothing was found that keeps GPU work from running."),
        (
            run_of(*HEALTHY, result(CAPACITY, other(CAPACITY, Outcome.UNKNOWN)), allow_unknown=True),
            "✓ Nothing was found that keeps GPU work from running; 1 check could not be judged, which was allowed.",
        ),
        (run_of(), "? It is not known whether GPU work runs here: nothing could be judged."),
        (
            run_of(result(CAPACITY, fault(CAPACITY, severity=Severity.MINOR))),
            "? It is not known whether GPU work runs here: no check passed.",
        ),
        (
            run_of(result(CAPACITY, fault(CAPACITY)), causes=(cause(),), nodes=GpuNodes(8, 8)),
            "✗ GPU work cannot run on at least 1 of 8 GPU nodes.",
        ),
        (run_of(result(CAPACITY, fault(CAPACITY))), "✗ GPU work is broken here: 1 critical requirement not met."),
        (
            run_of(result(CAPACITY, fault(CAPACITY, severity=Severity.MAJOR))),
            "✗ Some GPU work cannot run here, or runs wrongly.",
        ),
        (
            run_of(result(CAPACITY, fault(CAPACITY, severity=Severity.MINOR)), fail_on=Severity.INFO),
            "✗ Faults were found; the worst is minor.",
        ),
        (crashed(), "! No verdict: 1 check of gpucheck crashed."),
        (
            msgspec.structs.replace(run_of(*HEALTHY), verdict=Verdict.ERROR, exit_code=3),
            "! No verdict: gpucheck could not do its work.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(run: Run, sentence: str) -> None:
    assert sentence in shown(run, width=140).splitlines()


@pytest.mark.parametrize(
    ("nodes", "phrase"),
    [
        (GpuNodes(8, 7, (("gpu-5", "forbidden"),)), "7 of 8 GPU nodes judged, 1 forbidden"),
        (GpuNodes(8, 6, (("a", "forbidden"), ("b", "no answer"))), "6 of 8 GPU nodes judged, 1 forbidden, 1 not"),
        (GpuNodes(0, 0), "no GPU node"),
    ],
)
def test_the_denominator_is_in_the_first_line(nodes: GpuNodes, phrase: str) -> None:
    assert f" · {phrase} · " in shown(run_of(*HEALTHY, nodes=nodes)).splitlines()[0]


def test_missing_evidence_is_listed_with_its_reason_and_its_nodes() -> None:
    run = run_of(
        *HEALTHY,
        nodes=GpuNodes(8, 6, (("gpu-5", "no answer within 120 s"), ("gpu-6", "no answer within 120 s"))),
        missing=(
            MissingEvidence("api/events", MissingKind.FORBIDDEN, "events is forbidden"),
            MissingEvidence("host", MissingKind.TIMEOUT, "no answer", node="gpu-5"),
            MissingEvidence("host", MissingKind.TIMEOUT, "no answer", node="gpu-6"),
        ),
    )

    assert (
        "Evidence missing "
        "· 2 of 8 GPU nodes not judged, gpu-5, gpu-6: no answer within 120 s "
        "· api/events · forbidden: events is forbidden "
        "· host on gpu-5, gpu-6 · timeout: no answer"
    ) in words(run)


def test_long_lists_say_how_many_they_leave_off() -> None:
    missing = tuple(MissingEvidence(f"log/{number}", MissingKind.ERROR, "gone") for number in range(20))

    assert "and 12 more pieces; -v shows more, --json all" in shown(run_of(*HEALTHY, missing=missing))


def test_a_crash_is_told_as_our_defect_with_the_last_line_of_its_traceback() -> None:
    report = words(crashed())

    assert (
        "PLG-005 · crashed on dxlab-nb-00 seen KeyError: 'x' "
        "means a defect of gpucheck, not of the cluster; report it with the bundle"
    ) in report
    assert "Traceback" not in report
    assert "Traceback (most recent call last): File 'x.py' KeyError: 'x'" in words(crashed(), verbosity=1)


def test_what_is_gpuchecks_own_is_shown_only_when_asked() -> None:
    quiet, verbose = words(undesired_plugin()), words(undesired_plugin(), verbosity=1)

    for inside in ("r-7f3a", "12 ms", "troubleshoot", "--fail-on major", "exit 1 (faults)"):
        assert inside not in quiet
        assert inside in verbose
    assert "PLG-005 1 fault of 1 · 12 ms · Capacity is what" in verbose


HOSTILE: Final = f"\x1b[31mred\x1b]0;title\x07{chr(0x202E)}{chr(0xDC80)}\r\x00[bold]markup[/bold]:smile:"
SAFE: Final = r"red\u202e\udc80\r\x00[bold]markup[/bold]:smile:"


def hostile_everywhere() -> Run:
    subject = node(HOSTILE)
    info = msgspec.structs.replace(CAPACITY, title=HOSTILE, id=HOSTILE)
    first = msgspec.structs.replace(
        cause(HOSTILE, title=HOSTILE, subjects=(subject,), seen=(HOSTILE,), remedy=(HOSTILE,)),
        then=HOSTILE,
        interrupts=HOSTILE,
        references=(HOSTILE,),
        signs_for=(HOSTILE,),
        signs_against=(HOSTILE,),
    )
    return run_of(
        result(info, fault(info, subject, seen=HOSTILE, means=HOSTILE, remedy=HOSTILE), passed=[node("gpu-0")]),
        result(CAPACITY, other(CAPACITY, Outcome.UNKNOWN, subject, reason=HOSTILE)),
        result(check("PLG-006"), other(CAPACITY, Outcome.BROKEN, subject, reason=HOSTILE)),
        causes=(first,),
        nodes=GpuNodes(2, 1, ((HOSTILE, HOSTILE),)),
        missing=(MissingEvidence(HOSTILE, MissingKind.ERROR, HOSTILE, node=HOSTILE),),
        where=HOSTILE,
    )


def test_hostile_text_reaches_no_terminal() -> None:
    report = shown(hostile_everywhere(), width=400, verbosity=1)

    assert [each for each in set(report) if not each.isprintable()] == ["\n"]
    assert report.count(SAFE) > 15


def test_a_log_line_of_five_megabytes_is_cut() -> None:
    line = "HEAD" + "x" * 5_000_000 + "TAIL"
    run = run_of(
        result(CAPACITY, fault(CAPACITY, node("gpu-3"), seen=line, means=line, remedy=line)),
        result(check("PLG-006"), other(CAPACITY, Outcome.UNKNOWN, reason=line)),
        where=line,
    )

    report = shown(run, width=80, verbosity=1)

    assert len(report) < 40_000
    assert "HEADxxx" in report
    assert "characters cut" in report
    assert "xxxTAIL" in report


def test_hostile_text_in_an_identifier_reaches_no_terminal() -> None:
    explained = Finding(CAPACITY, fault(CAPACITY), consequence_of=(HOSTILE,))

    report = shown(run_of(result(CAPACITY, fault(CAPACITY)), causes=(cause(),), findings=(explained,)), width=200)

    assert f"1 fault, a consequence of {SAFE}" in report


def test_quiet_names_the_check_that_crashed() -> None:
    assert "! No verdict: 1 check of gpucheck crashed. (simulated) PLG-005 · crashed" in words(crashed(), quiet=True)


def test_quiet_says_what_kept_gpucheck_from_its_work() -> None:
    missing = (MissingEvidence("api/nodes", MissingKind.FORBIDDEN, "nodes is forbidden"),)
    run = msgspec.structs.replace(run_of(missing=missing), verdict=Verdict.ERROR, exit_code=3)

    assert "Evidence missing · api/nodes · forbidden: nodes is forbidden" in words(run, quiet=True)


def test_quiet_shows_the_first_root_finding_where_no_cause_is_known() -> None:
    report = shown(run_of(result(CAPACITY, fault(CAPACITY))), quiet=True)

    assert "No known cause explains this. The first root finding:\n     PLG-005 · critical" in report


def test_a_healthy_run_is_one_quiet_line() -> None:
    report = shown(run_of(*HEALTHY, simulated=False), quiet=True)

    assert report == "✓ Nothing was found that keeps GPU work from running.\n"


def test_a_cause_with_many_facts_says_how_many_it_leaves_off() -> None:
    facts = tuple(f"fact {number}" for number in range(20))
    run = run_of(result(CAPACITY, fault(CAPACITY)), causes=(cause(seen=facts),))

    assert "fact 7\n            and 12 more facts" in shown(run)


def test_a_word_of_many_lines_is_folded() -> None:
    run = run_of(result(CAPACITY, fault(CAPACITY, seen="x" * 390)))

    assert max(len(line) for line in shown(run, width=80).splitlines()) < 160


def test_a_fault_that_cause_and_finding_name_is_not_told_twice() -> None:
    report = shown(run_of(result(CAPACITY, fault(CAPACITY)), findings=(Finding(CAPACITY, fault(CAPACITY)),)))

    assert report.count("PLG-005 · critical") == 1
