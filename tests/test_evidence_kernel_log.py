"""The kernel's log: every spelling in which drivers 470 to 580 wrote, and how far back it reaches."""

import time

import pytest

from kube_gpucheck.evidence.kernel_log import KernelLog, Mismatch, NoticeKind, Sxid, Xid, parse_kernel_log, slot_of

BOOT = "[    0.000000] Linux version 5.15.0-46-generic (buildd@lcy02)\n"
LOADED = "[    4.561434] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  525.78.01  Mon Dec 26 05:58:42 UTC 2022\n"


@pytest.mark.parametrize(
    ("line", "xid"),
    [
        (
            "[  151.155837] NVRM: Xid (PCI:0000:00:06): 31, pid=8407, name=vectorAdd, channel 0x0000000a, intr 0",
            Xid(
                "0000:00:06",
                31,
                "pid=8407, name=vectorAdd, channel 0x0000000a, intr 0",
                151.155837,
                "vectorAdd",
                8407,
            ),
        ),
        (
            "[12.5] NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            Xid("0000:3b:00", 79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", 12.5),
        ),
        (
            "[12.5] NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.",
            Xid("0000:02:00", 79, "GPU has fallen off the bus.", 12.5),
        ),
        ("[12.5] NVRM: Xid (0000:02:00): 8, Channel 00000001", Xid("0000:02:00", 8, "Channel 00000001", 12.5)),
        ("[12.5] NVRM: Xid (PCI:0000:31:00 GPU-I:05): 13, x", Xid("0000:31:00", 13, "x", 12.5)),
        ("[12.5] NVRM: Xid (PCI:00010000:01:00.0): 48", Xid("10000:01:00", 48, "", 12.5)),
        ("[Mon Nov 23 23:45:00 2026] NVRM: Xid (PCI:0000:02:00): 94, Contained", Xid("0000:02:00", 94, "Contained")),
        (
            "Dec  2 11:49:53 worker4 kernel: [  885.242168] NVRM: Xid (PCI:0000:0a:00): 119, Timeout",
            Xid("0000:0a:00", 119, "Timeout", 885.242168),
        ),
        (
            "2026-11-24T00:13:31+0000 gpu-node-0 kernel: NVRM: Xid (PCI:0000:0a:00): 63, pid=1, name=a b, Row",
            Xid("0000:0a:00", 63, "pid=1, name=a b, Row", None, "a b", 1),
        ),
        ("<4>[   12.500000] NVRM: Xid (PCI:0000:02:00): 43, Ch 00000010", Xid("0000:02:00", 43, "Ch 00000010", 12.5)),
    ],
)
def test_an_xid_is_read_in_every_spelling(line: str, xid: Xid) -> None:
    assert parse_kernel_log(BOOT + line).xids == (xid,)


@pytest.mark.parametrize(
    ("driver", "text", "pid", "process"),
    [
        # as nvErrorLog_va and the RC code of each branch print them: open-gpu-kernel-modules, kernel_rc.c, by tag;
        # 470 as in public reports
        ("470", "pid=1234, Ch 00000010, intr 10000000. MMU Fault: ENGINE GRAPHICS faulted @ 0x7f_21000000", 1234, None),
        ("470", "Ch 00000010, engmask 00000101, intr 10000000", None, None),
        ("515", "pid=1234, name=python3, Ch 00000010, intr 10000000. MMU Fault: ENGINE", 1234, "python3"),
        ("535", "pid='<unknown>', name=<unknown>, Ch 00000010", None, None),
        ("550", "pid='1234', name=python3, Ch 00000010", 1234, "python3"),
        ("570", "pid=1234, name=python3, channel 0x00000010, intr 00000000. MMU Fault: ENGINE", 1234, "python3"),
        ("580", "channel 0x00000010, intr 00000000. MMU Fault: ENGINE", None, None),
    ],
)
def test_pid_and_name_are_read_where_the_driver_says_them(
    driver: str, text: str, pid: int | None, process: str | None
) -> None:
    where = "PCI:0000:3b:00 GPU-I:05 GPU-CI:00" if driver == "570" else "PCI:0000:3b:00"

    assert parse_kernel_log(f"{BOOT}[12.5] NVRM: Xid ({where}): 31, {text}\n").xids == (
        Xid("0000:3b:00", 31, text, 12.5, process, pid),
    )


def test_an_echo_says_which_xid_it_follows() -> None:
    text = "pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149"
    echo, other = parse_kernel_log(
        f"{BOOT}[9.5] NVRM: Xid (PCI:0000:dc:00): 45, {text}\n[9.6] NVRM: Xid (PCI:0000:dc:00): 45, pid=1, Ch 1\n"
    ).xids

    assert (echo.previous, other.previous) == (149, None)


@pytest.mark.parametrize(
    "lines",
    [
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0",
            "NVRM: (PCI ID: 10de:26b5) installed in this system has",
            "NVRM: fallen off the bus and is not responding to commands.",
        ),
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this",
            "NVRM: system has fallen off the bus and is not responding to commands.",
        ),
    ],
)
@pytest.mark.parametrize("stamped", [True, False])
def test_a_gpu_that_fell_off_the_bus_is_named_in_the_message_s_first_line(
    lines: tuple[str, ...], *, stamped: bool
) -> None:
    text = "".join(
        f"{'[ 1843.308145] ' if stamped or not place else ' ' * 15}{line}\n" for place, line in enumerate(lines)
    )
    log = parse_kernel_log(BOOT + "[ 1843.3] NVRM: The NVIDIA GPU 0000:01:00.0\n[ 1843.3] usb 1-1: x\n" + text)

    assert [(one.kind, one.address) for one in log.notices] == [(NoticeKind.FELL_OFF, "0000:b3:00")]


def test_a_message_whose_beginning_is_lost_names_no_gpu() -> None:
    text = "[9.5] usb 1-1: new device\n[9.6] NVRM: fallen off the bus and is not responding to commands.\n"

    assert [one.address for one in parse_kernel_log(BOOT + text).notices] == [""]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("NVRM: GPU0 _issueRpcAndWait: Timeout waiting for RPC from GSP! Expected function 76 (GSP_RM_CONTROL)", ""),
        ("NVRM: Timeout waiting for RPC from GSP1! Expected function 103 (GSP_RM_ALLOC) (0x0 0x6c).", ""),
        ("NVRM: GPU at PCI:0000:3b:00: Timeout after 45s of waiting for RPC response from GPU0 GSP!", "0000:3b:00"),
        ("NVRM: GPU0 sanity check failed 0x62 waiting for RPC response from GSP. Expected function 76", ""),
    ],
)
def test_a_gsp_that_stopped_answering_is_told_where_no_xid_tells_it(text: str, address: str) -> None:
    notices = parse_kernel_log(f"{BOOT}[9.5] {text}\n").notices

    assert [(one.kind, one.address) for one in notices] == [(NoticeKind.GSP_TIMEOUT, address)]


def test_errors_of_nvswitches_are_told_apart_from_xids() -> None:
    log = parse_kernel_log(
        BOOT
        + "[  412.5] nvidia-nvswitch3: SXid (PCI:0000:85:00.0): 20034, Fatal, Link 30 LTSSM Fault Up\n"
        + "[  412.6] nvidia-nvswitch3: SXid (PCI:0000:85:00.0): 24007, Non-fatal, Link 30 sourcetrack timeout\n"
    )

    assert log.xids == ()
    assert log.sxids == (
        Sxid("0000:85:00", 20034, "Fatal, Link 30 LTSSM Fault Up", 412.5),
        Sxid("0000:85:00", 24007, "Non-fatal, Link 30 sourcetrack timeout", 412.6),
    )
    assert [one.fatal for one in log.sxids] == [True, False]


def test_a_message_of_several_lines_names_both_versions() -> None:
    log = parse_kernel_log(
        BOOT
        + "[   97.784108] NVRM: API mismatch: the client 'nvidia-smi' (pid 3011)\n"
        + "               NVRM: has the version 580.126.09, but this kernel module has\n"
        + "               NVRM: the version 580.159.04.  Please make sure that this\n"
        + "               NVRM: kernel module and all NVIDIA driver components\n"
        + "               NVRM: have the same version.\n"
    )

    assert log.mismatches == (Mismatch("nvidia-smi", "580.126.09", "580.159.04", 97.784108),)


def test_a_message_of_driver_470_has_a_timestamp_on_each_line_and_no_client() -> None:
    log = parse_kernel_log(
        BOOT
        + "[   97.784108] NVRM: API mismatch: the client has the version 470.57.02, but\n"
        + "[   97.784108] NVRM: this kernel module has the version 470.42.01.  Please\n"
        + "[   97.784108] NVRM: make sure that this kernel module and all NVIDIA driver\n"
    )

    assert log.mismatches == (Mismatch(None, "470.57.02", "470.42.01", 97.784108),)


def test_a_message_that_is_cut_off_is_no_mismatch() -> None:
    log = parse_kernel_log(BOOT + "[   97.784108] NVRM: API mismatch: the client 'nvidia-smi' (pid 3011)\n")

    assert log.mismatches == ()


def test_two_messages_that_follow_each_other_stay_two() -> None:
    one = (
        "[1.5] NVRM: API mismatch: the client 'a' (pid 1)\nNVRM: has the version 550.54.15, but this kernel module has"
    )
    text = f"{one}\nNVRM: the version 550.40.07.\n{one}\nNVRM: the version 550.40.07.\n"

    assert [one.client_version for one in parse_kernel_log(BOOT + text).mismatches] == ["550.54.15", "550.54.15"]


@pytest.mark.parametrize(
    ("line", "kind", "address"),
    [
        ("NVRM: GPU 0000:0a:00.0: RmInitAdapter failed! (0x24:0x72:1568)", NoticeKind.INIT_FAILURE, "0000:0a:00"),
        ("NVRM: GPU at PCI:0000:02:00 has fallen off the bus.", NoticeKind.FELL_OFF, "0000:02:00"),
        ("NVRM: RmInitAdapter: Cannot initialize GSP firmware RM", NoticeKind.GSP_FAILURE, ""),
        ("NVRM: BAR1 is 0M @ 0x0 (PCI:0000:14:00.0)", NoticeKind.NO_BAR, "0000:14:00"),
        ("Loading of unsigned module is rejected", NoticeKind.UNSIGNED_MODULE, ""),
        ("NVRM: was loaded and obtained ownership of the NVIDIA device(s).", NoticeKind.NOUVEAU_OWNS, ""),
        ("nvidia: version magic '5.15.0-46' should be '6.8.0-1029'", NoticeKind.WRONG_BUILD, ""),
        ("NVRM: installed in this system is not supported by the", NoticeKind.UNSUPPORTED, ""),
    ],
)
def test_what_the_driver_said_beside_xids_is_told_apart(line: str, kind: NoticeKind, address: str) -> None:
    notices = parse_kernel_log(f"{BOOT}[   99.000000] {line}\n").notices

    assert [(one.kind, one.address) for one in notices] == [(kind, address)]


def test_another_modules_version_magic_says_nothing_of_nvidia() -> None:
    assert parse_kernel_log(BOOT + "[9.5] zfs: version magic '5.15.0-46' should be '6.8.0'; a module\n").notices == ()


def test_a_log_that_begins_with_the_kernel_has_no_gap() -> None:
    assert parse_kernel_log(BOOT).gap is None


def test_a_log_that_shows_the_modules_start_has_no_gap_though_it_is_filtered_or_cut() -> None:
    assert parse_kernel_log(LOADED, filtered="nvidia|NVRM").gap is None
    assert parse_kernel_log(LOADED, truncated=True).gap is None


@pytest.mark.parametrize(
    ("text", "filtered", "truncated", "words"),
    [
        ("[98231.1] eth0: link up\n", None, False, "begins 98231 s after boot"),
        ("", None, False, "the log is empty"),
        ("", "(?i)nvrm", False, "no line passed the filter"),
        ("[98231.1] NVRM: x\n", "NVRM", False, "beginning is missing or was rotated"),
        (LOADED, "usb", False, "keeps NVRM's lines out"),
        (LOADED, "(", False, "keeps NVRM's lines out"),
        (BOOT, None, True, "beginning is missing"),
        ("Dec  2 11:49:53 worker4 kernel: eth0: link up\n", None, False, "no beginning that can be dated"),
    ],
)
def test_a_log_that_may_lack_xids_says_why(text: str, filtered: str | None, *, truncated: bool, words: str) -> None:
    gap = parse_kernel_log(text, filtered=filtered, truncated=truncated).gap

    assert gap is not None
    assert words in gap


def test_what_a_journal_holds_of_earlier_boots_is_left_out() -> None:
    old = BOOT + "[12.5] NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.\n"

    assert parse_kernel_log(old + BOOT + LOADED) == KernelLog()


@pytest.mark.parametrize("text", ["\x00\x1b[31m\ufffd", "NVRM:", "[", "[    0.0] NVRM: Xid (", "NVRM: Xid (PCI:): 79"])
def test_text_that_is_no_log_has_no_xid_of_a_gpu(text: str) -> None:
    assert all(xid.address == "" for xid in parse_kernel_log(text).xids)


def test_a_huge_log_is_read_in_linear_time() -> None:
    line = "[  154.339664] NVRM: Xid (PCI:0000:00:06): 13, Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0)\n"
    text = LOADED + line * 50_000 + "NVRM: API mismatch: the client '" + "a" * 1_000_000

    began = time.process_time()
    log = parse_kernel_log(text)

    assert len(log.xids) == 50_000
    assert time.process_time() - began < 10


def test_an_address_is_brought_into_the_kernels_spelling() -> None:
    assert slot_of("00000000:3B:00.0") == "0000:3b:00"
    assert slot_of("no address") == ""
