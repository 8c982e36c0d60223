"""Driver layer: heat, power and settings leave the GPU its speed."""

from kube_gpucheck.evidence import Gpu
from kube_gpucheck.evidence.health import SLOW_DOWNS, SlowDown
from kube_gpucheck.evidence.pci import given_away
from kube_gpucheck.judging import check, fault, known, not_applicable
from kube_gpucheck.model import Layer, Seen, Severity


@check("DRV-015", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_nothing_slows_the_gpu_down(gpu: Gpu) -> None:
    """No hardware slowdown, thermal slowdown or power brake holds the GPU's clocks down.

    As it was when the host was read. Idle clocks, application clocks and the power limit under load are no slowdown.
    Not judged: slowdowns that are over.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    active = known(gpu.health.slow_downs, "what NVML says of the GPU")
    if active is None:
        not_applicable("NVML does not tell why this GPU's clocks are what they are")
    if not active:
        return
    named = ", ".join(name for one, name in SLOW_DOWNS.items() if one in active)
    power = SlowDown.POWER_BRAKE in active
    fault(
        seen="; ".join((f"active: {named}", *_beside(gpu))),
        means="the power supply asks the GPU to save power, so that clocks are halved or less"
        if power
        else "the GPU protects itself from heat or from its power supply: its clocks are halved or less",
        remedy="look at power supplies, their cables and the platform's power cap ('ipmitool sdr', the BMC's log)"
        + ("" if power else ", at fans, dust, airflow and inlet temperature, and at the GPU's power connector")
        + "; then run 'gpucheck run -k DRV-015'",
    )


def _beside(gpu: Gpu) -> list[str]:
    """Return what else was read of the GPU's clocks, power and heat."""
    clock, draw, heats = gpu.health.clock_mhz, gpu.health.draw, gpu.health.heats
    facts = [f"SM clock {clock.value} MHz"] if isinstance(clock, Seen) and clock.value is not None else []
    if isinstance(draw, Seen) and draw.value is not None:
        facts.append(f"{draw.value} drawn")
    return facts + ([str(one) for one in heats.value] if isinstance(heats, Seen) else [])


@check("DRV-016", layer=Layer.DRIVER, severity=Severity.MAJOR, after=("DRV-005",))
def check_temperatures_are_below_the_limits(gpu: Gpu) -> None:
    """GPU and memory are cooler than the card's own slowdown temperatures.

    The limits are those that the GPU itself tells. Not judged: a GPU that tells none.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    heats = known(gpu.health.heats, "what NVML says of the GPU")
    if not heats:
        not_applicable("NVML tells no temperature of this GPU with its limit")
    hot = [one for one in heats if one.too_hot]
    if hot:
        fault(
            seen="; ".join(str(one) for one in hot),
            means="the GPU slows itself down, and switches itself off if it gets hotter still",
            remedy="look at fans, dust, airflow and inlet temperature; take load off the node until it is cool; then "
            "run 'gpucheck run -k DRV-016'",
        )


@check("DRV-017", layer=Layer.DRIVER, severity=Severity.INFO, after=("DRV-005",))
def check_power_and_clock_settings_are_the_defaults(gpu: Gpu) -> None:
    """Power limit and application clock are the GPU's defaults.

    An administrator may have meant them otherwise. Not judged: locked clocks, which NVML does not tell.
    """
    if (reason := known(given_away(gpu.node), "the node's workload type")) is not None:
        not_applicable(reason)
    settings = known(gpu.health.settings, "what NVML says of the GPU")
    if not settings:
        not_applicable("this GPU has no power limit and no application clock to set")
    other = [one for one in settings if one.now != one.default]
    if other:
        fault(
            seen=", ".join(f"{one.name} {one.now} {one.unit}, default {one.default} {one.unit}" for one in other),
            means="the GPU was set to run otherwise than it is built for; jobs take longer or shorter than elsewhere",
            remedy="if nobody meant it, run 'nvidia-smi -pl "
            f"{next((one.default for one in settings if one.unit == 'W'), 'WATTS')}' and 'nvidia-smi -rac' as root; "
            "then run 'gpucheck run -k DRV-017'",
        )
