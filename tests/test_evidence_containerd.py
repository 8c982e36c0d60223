"""What containerd and CRI-O make of their files, release by release."""

import json

import pytest

from kube_gpucheck.evidence import containerd, crio, toml
from kube_gpucheck.evidence.configuration import Configuration, Handler, Origin
from kube_gpucheck.evidence.containerd import CRI_V1, CRI_V2, effective, parse
from kube_gpucheck.evidence.toml import ConfigurationError, UndecidedError

RUNC = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
NVIDIA = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
    BinaryName = "/usr/bin/nvidia-container-runtime"
    SystemdCgroup = true
"""
MAIN = "version = 2\n" + RUNC + NVIDIA
PLAIN = "/etc/containerd"


def names(configuration: Configuration) -> list[str]:
    return [one.name for one in configuration.handlers]


def load(release: tuple[int, ...] | None, *texts: str) -> Configuration:
    return effective(tuple(parse(f"/{place}.toml", text) for place, text in enumerate(texts)), release)


def test_a_handler_is_read_with_the_file_that_set_it() -> None:
    (found,) = load((1, 6), MAIN).nvidia

    origin = Origin("/0.toml", MAIN, ("plugins", CRI_V2, "containerd", "runtimes", "nvidia"))
    binary = "/usr/bin/nvidia-container-runtime"
    assert found == Handler("nvidia", binary, "io.containerd.runc.v2", systemd_cgroup=True, origin=origin)
    assert str(found.origin) == "/0.toml:6"


@pytest.mark.parametrize("release", [(1, 6), (1, 7)])
def test_in_1_x_a_later_section_takes_the_place_of_the_whole_earlier_one(release: tuple[int, int]) -> None:
    found = load(release, MAIN, 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_selinux = true\n')

    assert names(found) == ["runc"]
    assert [(str(one.origin), str(one.winner)) for one in found.lost] == [("/0.toml:6", "/1.toml:2")]


def test_in_1_x_a_drop_in_with_nvidia_alone_leaves_no_default_handler() -> None:
    found = load((1, 6), "version = 2\n" + RUNC, "version = 2\n" + NVIDIA)

    assert names(found) == ["nvidia"]
    assert found.find(found.default) is None


@pytest.mark.parametrize("release", [(2, 0), (2, 3)])
def test_in_2_x_sections_are_merged_key_by_key(release: tuple[int, int]) -> None:
    found = load(release, "version = 2\n" + RUNC, "version = 2\n" + NVIDIA)

    assert names(found) == ["nvidia", "runc"]
    assert found.lost == ()
    assert found.nvidia[0].file == "/1.toml"


def test_in_2_x_a_later_program_for_the_same_handler_names_winner_and_loser() -> None:
    other = NVIDIA.replace("/usr/bin", "/usr/local/nvidia/toolkit")

    found = load((2, 1), MAIN, "version = 2\n" + other)

    assert [(str(one.origin), str(one.winner), one.instead) for one in found.lost] == [
        ("/0.toml:6", "/1.toml:3", "handler 'nvidia' with /usr/local/nvidia/toolkit/nvidia-container-runtime")
    ]


def test_a_file_of_version_3_is_read_under_its_own_section() -> None:
    found = load((2, 2), MAIN.replace("grpc.v1.cri", "cri.v1.runtime").replace("version = 2", "version = 3"))

    assert [one.name for one in found.nvidia] == ["nvidia"]


def test_the_section_of_version_2_counts_for_nothing_in_a_file_of_version_3() -> None:
    found = load((2, 2), MAIN.replace("version = 2", "version = 3"))

    assert found.nvidia == ()


def test_a_file_without_a_version_is_version_1() -> None:
    text = '[plugins.cri.containerd.runtimes.nvidia.options]\nBinaryName = "/usr/bin/nvidia-container-runtime"\n'

    assert load((1, 6), text).nvidia[0].binary == "/usr/bin/nvidia-container-runtime"
    assert load((1, 6), MAIN.replace("version = 2\n", "")).nvidia == ()


def test_the_engine_of_a_handler_counts_for_the_shim_of_1_x_alone() -> None:
    text = '[plugins.cri.containerd.runtimes.a]\nruntime_type = "%s"\nruntime_engine = "/nvidia-container-runtime"\n'

    assert [one.name for one in load((1, 6), text % "io.containerd.runtime.v1.linux").nvidia] == ["a"]
    assert load((1, 6), text % "io.containerd.runc.v2").nvidia == ()


def test_the_deprecated_default_runtime_is_the_default_handler() -> None:
    text = (
        '[plugins.cri.containerd.default_runtime]\nruntime_type = "io.containerd.runtime.v1.linux"\n'
        'runtime_engine = "/usr/bin/nvidia-container-runtime"\n'
    )

    assert load((1, 6), text).default_is_nvidia


def test_of_versions_2_and_3_side_by_side_2_0_to_2_2_take_the_last_ones() -> None:
    three = "version = 3\n" + NVIDIA.replace("grpc.v1.cri", "cri.v1.runtime")
    two = "version = 2\n" + NVIDIA.replace("nvidia]", "other]").replace("nvidia.options", "other.options")

    assert names(load((2, 1), two, three)) == ["nvidia", "runc"]
    assert names(load((2, 1), three, two)) == ["nvidia", "runc"]
    assert names(load((2, 3), three, two)) == ["nvidia", "other", "runc"]
    assert names(load((2, 1), two, two)) == ["other", "runc"]


def test_what_is_written_for_another_version_is_undone_by_the_line_that_says_the_version() -> None:
    found = load((1, 6), "version = 2\n" + RUNC, "version = 1\n" + NVIDIA)

    winners = {one.setting.key[-1]: str(one.winner) for one in found.undone if "nvidia" in one.setting.key}
    assert names(found) == ["runc"]
    assert winners == dict.fromkeys(("runtime_type", "BinaryName", "SystemdCgroup"), "/1.toml:1")


def test_every_setting_knows_its_line_and_what_it_undid() -> None:
    found = load((1, 6), 'version = 2\nroot = "/a"\n' + RUNC, 'version = 2\nroot = "/b"\n')

    assert [(str(one.origin), one.value) for one in found.settings if one.key == ("root",)] == [("/1.toml:2", "/b")]
    (undone,) = found.undone
    assert (str(undone.setting.origin), undone.setting.value) == ("/0.toml:2", "/a")
    assert (str(undone.winner), undone.instead) == ("/1.toml:2", "/b")


def test_a_replaced_section_undoes_what_the_new_one_does_not_say() -> None:
    found = load((1, 6), MAIN, f'version = 2\n[plugins."{CRI_V2}"]\nenable_selinux = true\n')

    lost = {".".join(one.setting.key[4:]): one.instead for one in found.undone}
    assert lost["nvidia.options.BinaryName"] is None
    assert {str(one.winner) for one in found.undone} == {"/1.toml:2"}


def test_without_a_release_both_rules_must_agree() -> None:
    assert [one.name for one in load(None, MAIN).nvidia] == ["nvidia"]
    with pytest.raises(ConfigurationError, match="release is not known"):
        load(None, MAIN, 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_selinux = true\n')


@pytest.mark.parametrize(
    ("release", "texts", "reason"),
    [
        ((1, 6, 31), ("version = 3\n",), None),
        ((1, 6, 32), ("version = 3\n",), "/0.toml:1 has version 3, containerd 1.6.32 reads up to 2"),
        ((1, 7, 17), ("version = 3\n",), "/0.toml:1 has version 3, containerd 1.7.17 reads up to 2"),
        ((1, 7, 17), ("version = 3\n", "version = 2\n"), None),
        ((2, 2), ("version = 4\n",), "/0.toml:1 has version 4, containerd 2.2 reads up to 3"),
        ((2, 3), ("version = 3\n", "version = 4\n"), "/1.toml:1 has version 4, more than the 3 of /0.toml"),
        (
            (1, 7),
            ('disabled_plugins = ["cri"]\n', "version = 2\n"),
            "/0.toml:1 has 'cri' in disabled_plugins, a name of version 1 beside version 2",
        ),
        ((2, 1), ('disabled_plugins = ["cri"]\n', "version = 2\n"), None),
        (
            (2, 1),
            ("\ufeffversion = 2\n",),
            "/0.toml:1 begins with a byte order mark, which containerd 2.1 takes for no TOML",
        ),
        (
            (1, 6),
            ("version = 2\n", "[plugins.cri]\n"),
            "/1.toml:1 has plugin 'cri' of version 1 beside files of version 2",
        ),
        ((2, 3), ("version = 4\n",), None),
    ],
)
def test_files_that_a_release_refuses_are_said(
    release: tuple[int, ...], texts: tuple[str, ...], reason: str | None
) -> None:
    assert load(release, *texts).refused == reason


@pytest.mark.parametrize(
    ("handler", "is_nvidia"),
    [
        (Handler("gpu", "/usr/bin/nvidia-container-runtime"), True),
        (Handler("gpu", "/usr/local/nvidia/toolkit/nvidia-container-runtime.cdi"), True),
        (Handler("nvidia", "/usr/bin/runc"), False),
        (Handler("nvidia"), True),
        (Handler("nvidia-hook", "/usr/bin/nvidia-container-runtime-hook"), False),
        (Handler("runc"), False),
    ],
)
def test_a_handler_is_nvidias_by_its_program_or_else_by_its_name(handler: Handler, *, is_nvidia: bool) -> None:
    assert handler.is_nvidia is is_nvidia


@pytest.mark.parametrize(
    "text",
    [
        "version = ",
        "version = 'two'",
        "version = 2\nimports = 'a.toml'",
        "version = 2\n[plugins]\n'io.containerd.grpc.v1.cri' = 1",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nruntimes = ['nvidia']",
        "a = " + "[" * 20000,
        "#" * (toml.MAX_TEXT + 1),
        '{{ template "base" . }}',
    ],
)
def test_a_file_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(ConfigurationError):
        load((1, 6), text)


def test_a_file_of_ten_megabytes_is_not_parsed() -> None:
    with pytest.raises(UndecidedError, match=r"/0.toml: 10\d{6} characters, more than the \d+ that are read"):
        load((1, 6), "version = 2\n" + "# padding\n" * 1_048_576)


def test_an_empty_file_leaves_what_is_built_in() -> None:
    assert names(load((1, 6), "")) == ["runc"]


def test_a_dump_that_was_cut_off_is_no_configuration() -> None:
    with pytest.raises(ConfigurationError, match="cut short"):
        containerd.dumped('disabled_plugins = []\nimports = ["/etc/containerd/config.toml"]\n')


def test_a_dump_names_its_files() -> None:
    found = containerd.dumped('imports = ["/a.toml", "/b.toml"]\n' + MAIN)

    assert found.files == ("/a.toml", "/b.toml")
    assert found.nvidia[0].file is None


def test_a_disabled_cri_plugin_is_seen_under_each_of_its_names() -> None:
    assert load((1, 6), 'disabled_plugins = ["cri"]\n').cri_disabled
    assert not load((1, 6), f'disabled_plugins = ["{CRI_V2}"]\n').cri_disabled
    assert load((2, 1), f'disabled_plugins = ["{CRI_V1}"]\n').cri_disabled
    assert load((1, 6), 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n').cri_disabled
    assert not load((1, 6), 'version = 2\ndisabled_plugins = ["io.containerd.snapshotter.v1.zfs"]\n').cri_disabled


def test_the_running_engine_lists_its_handlers() -> None:
    answer = {
        "status": {"conditions": [{"type": "RuntimeReady", "status": True}]},
        "config": {
            "containerdEndpoint": "/run/containerd/containerd.sock",
            "enableCDI": True,
            "containerd": {"defaultRuntimeName": "runc", "runtimes": {"nvidia": {"options": {"BinaryName": "/x"}}}},
        },
    }

    found = containerd.running(json.dumps(answer))

    assert found.handlers == (Handler("nvidia", "/x"),)
    assert (found.ready, found.default, found.enable_cdi) == (True, "runc", True)


def test_cri_o_names_its_handlers_without_their_programs() -> None:
    answer = {"status": {}, "config": {}, "runtimeHandlers": [{"name": ""}, {"name": "crun"}, {"name": "nvidia"}]}

    assert containerd.running(json.dumps(answer)).handlers == (Handler("crun"), Handler("nvidia"))


@pytest.mark.parametrize("text", ["", "[]", '{"config": 1}', '{"config": {"containerd": {"runtimes": {"a": 1}}}}', "{"])
def test_an_answer_that_is_none_says_so(text: str) -> None:
    with pytest.raises(ConfigurationError):
        containerd.running(text)


def test_a_star_never_crosses_a_folder() -> None:
    assert containerd.matches("/etc/containerd/conf.d/*.toml", "/etc/containerd/conf.d/99-nvidia.toml")
    assert not containerd.matches("/etc/containerd/conf.d/*.toml", "/etc/containerd/config.d/99-nvidia.toml")
    assert not containerd.matches("/etc/containerd/*.toml", "/etc/containerd/conf.d/99-nvidia.toml")


@pytest.mark.parametrize(
    ("release", "folder"),
    [
        ((1, 6, 28), ""),
        ((1, 6, 29), "/etc/containerd"),
        ((1, 7, 15), ""),
        ((1, 7, 16), "/etc/containerd"),
        (None, "/etc/containerd"),
    ],
)
def test_a_relative_glob_begins_where_the_service_runs_until_it_begins_at_its_file(
    release: tuple[int, ...] | None, folder: str
) -> None:
    assert (
        containerd.import_pattern("/etc/containerd/config.toml", "conf.d/*.toml", release) == f"{folder}/conf.d/*.toml"
    )
    assert containerd.import_pattern("/etc/containerd/config.toml", "../a.toml", release) == "/etc/a.toml"


def test_a_later_file_of_cri_o_wins_key_by_key() -> None:
    main = (
        '[crio.runtime]\ndefault_runtime = "nvidia"\n'
        '[crio.runtime.runtimes.nvidia]\nruntime_path = "/usr/bin/nvidia-container-runtime"\n'
    )
    late = '[crio.runtime]\ndefault_runtime = "crun"\n'

    found = crio.effective((("/etc/crio/crio.conf", main), ("/etc/crio/crio.conf.d/10-crun.conf", late)))

    assert names(found) == ["crun", "nvidia", "runc"]
    assert found.default == "crun"
    assert [(str(one.origin), str(one.winner)) for one in found.lost] == [
        ("/etc/crio/crio.conf:2", "/etc/crio/crio.conf.d/10-crun.conf:2")
    ]


@pytest.mark.parametrize("text", ["[crio", "crio = 1", "[crio.runtime]\nruntimes = 1"])
def test_a_file_of_cri_o_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(ConfigurationError):
        crio.effective((("/etc/crio/crio.conf", text),))
