"""What is decided of the expressions by which claims choose devices, and what is left to the scheduler."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_gpucheck.evidence.documents import CelSelector, DeviceSelector, DraAttribute, DraCapacity, DraDeviceBody
from kube_gpucheck.evidence.selectors import matches, texts

DRIVER = "gpu.nvidia.com"
BODY = DraDeviceBody(
    attributes={
        "type": DraAttribute(text="gpu"),
        "productName": DraAttribute(text="NVIDIA H200"),
        "driverVersion": DraAttribute(version="580.65.6"),
        "minor": DraAttribute(number=3),
        "iommuFDEnabled": DraAttribute(flag=False),
        "resource.kubernetes.io/pciBusID": DraAttribute(text="0000:00:06.0"),
        "partitions": DraAttribute(),
    },
    capacity={"memory": DraCapacity("143771Mi")},
)


def selector(expression: str) -> DeviceSelector:
    """Return a selector of one expression."""
    return DeviceSelector(CelSelector(expression))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("device.driver == 'gpu.nvidia.com'", True),
        ('device.driver == "gpu.example.com"', False),
        ("'gpu.nvidia.com' == device.driver", True),
        ("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'", True),
        ("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'", False),
        ('device.attributes["gpu.nvidia.com"].productName != "NVIDIA B200"', True),
        ("(device.attributes['gpu.nvidia.com'].minor >= 2)", True),
        ("device.attributes['gpu.nvidia.com'].minor < 2", False),
        ("device.attributes['gpu.nvidia.com'].iommuFDEnabled", False),
        ("!device.attributes['gpu.nvidia.com'].iommuFDEnabled", True),
        ("device.attributes['resource.kubernetes.io'].pciBusID == '0000:00:06.0'", True),
        ("device.attributes['gpu.nvidia.com'].profile == '1g.18gb'", False),  # it has no such attribute
        ("device.attributes['gpu.example.com'].type == 'gpu'", False),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('80Gi')) >= 0", True),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('192Gi')) >= 0", False),
        ("device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('80Gi'))", True),
        ("device.capacity['gpu.nvidia.com'].memory.isLessThan(quantity('80Gi'))", False),
        # left to the scheduler
        ("device.attributes['gpu.nvidia.com'].productName.matches('.*H200')", None),
        ("device.attributes['gpu.nvidia.com'].productName.lowerAscii() == 'nvidia h200'", None),
        ("device.attributes['gpu.nvidia.com'].driverVersion.compareTo(semver('550.0.0')) >= 0", None),
        ("device.attributes['gpu.nvidia.com'].driverVersion == '580.65.6'", None),
        ("device.attributes['gpu.nvidia.com'].partitions == 'x'", None),
        ("device.driver == 'a' || device.driver == 'gpu.nvidia.com'", None),
        ("has(device.attributes['gpu.nvidia.com'].profile) ? true : false", None),
        ("device.attributes['gpu.nvidia.com'].productName == 'a && b'", None),
        ("", None),
        # a term that does not hold decides, whatever stands beside it
        ("device.driver == 'gpu.example.com' && device.attributes['gpu.nvidia.com'].productName.matches('x')", False),
        ("device.attributes['gpu.nvidia.com'].productName.matches('x') && device.driver == 'gpu.example.com'", False),
        ("device.attributes['gpu.nvidia.com'].productName.matches('x') && device.driver == 'gpu.nvidia.com'", None),
    ],
)
def test_an_expression_is_decided_or_left(expression: str, expected: bool | None) -> None:  # noqa: FBT001  a case's outcome
    assert matches([selector(expression)], DRIVER, BODY) is expected


def test_all_selectors_must_hold() -> None:
    gpu, undecided = selector(f"device.driver == '{DRIVER}'"), selector("device.x()")
    other = selector("device.driver == 'other'")

    assert matches([], DRIVER, BODY) is True
    assert matches([gpu, gpu], DRIVER, BODY) is True
    assert matches([gpu, undecided], DRIVER, BODY) is None
    assert matches([undecided, other], DRIVER, BODY) is False
    assert matches([DeviceSelector()], DRIVER, BODY) is None  # a kind of selector of later


def test_an_expression_is_shown_in_one_line() -> None:
    assert texts([selector("a ==\n  'b'"), DeviceSelector()]) == ("a == 'b'",)


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert matches([selector(text)], DRIVER, BODY) in {True, False, None}


@given(
    st.lists(st.sampled_from(["device.driver == 'gpu.nvidia.com'", "device.driver == 'x'", "device.f()"]), min_size=1)
)
def test_terms_together_hold_as_each_by_itself_does(terms: list[str]) -> None:
    alone = [matches([selector(one)], DRIVER, BODY) for one in terms]
    expected = False if False in alone else None if None in alone else True

    assert matches([selector(" && ".join(terms))], DRIVER, BODY) is expected
    assert matches([selector(one) for one in terms], DRIVER, BODY) is expected


def test_a_huge_expression_takes_no_time() -> None:
    assert matches([selector("(" * 10_000 + " && " * 3_000)], DRIVER, BODY) is None
