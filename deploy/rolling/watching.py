"""What a watch does about a status: roll back, ramp, or wait; and a clock that nobody can set."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from contracts.reading import ContractError, Strict, read_json, write_json
from deploy.analysis.status import ExperimentStatus

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RollBack(Strict, frozen=True):
    """End the experiment: ``why``."""

    why: str


class Ramp(Strict, frozen=True):
    """Give the arm the weight ``to``."""

    to: float


class Wait(Strict, frozen=True):
    """Do nothing: ``why``."""

    why: str


def decide(
    status: ExperimentStatus,
    arm: str | None,
    steps: tuple[float, ...],
    dwelt_s: float,
    dwell_s: float,
) -> RollBack | Ramp | Wait:
    """What to do about a status.

    It rolls back on the verdict "roll back": a broken guardrail, or a primary metric shown to be
    worse. It takes the next step only where nothing speaks against it: what is unknown holds it.

    Args:
        arm: to ramp; with ``steps``.
        steps: weights, rising. Without any it never ramps.
        dwelt_s: how long the arm has had its weight. dwell_s: how long it must.
    """
    if status.verdict == "roll back":
        return RollBack(" ".join(status.words[:2]))
    told = f"{status.verdict}: {status.words[0]}" if status.words else status.verdict
    if arm is None or not steps:
        return Wait(told)
    weight = next(one.weight for one in status.arms if one.name == arm)
    further = [step for step in steps if step > weight + 1e-9]
    if not further:
        return Wait(told)
    if status.verdict == "stop":
        return Wait(f"no ramp: {told}")
    if status.srm.ok is False:
        return Wait(f"no ramp: sample-ratio mismatch ({status.srm.why})")
    held = [one for one in status.guardrails if one.arm == arm and one.state != "ok"]
    if held:
        return Wait(f"no ramp: guardrail {held[0].metric} is {held[0].state}: {held[0].why}")
    if dwelt_s < dwell_s:
        return Wait(f"next step ({further[0]:g}) in {dwell_s - dwelt_s:.0f} s; {told}")
    return Ramp(further[0])


class _Mark(Strict, kw_only=True, frozen=True):
    """Since when an arm has had its weight, on a clock that runs from the machine's boot."""

    weight: float
    boot: str
    seconds: float


class _Marks(Strict, kw_only=True, frozen=True):
    version: int = 1
    arms: dict[str, _Mark] = msgspec.field(default_factory=dict)


@dataclass(frozen=True)
class DwellClock:
    """How long an arm has had its weight, as far as watches on this machine have seen.

    It survives a restart of the watch (a file beside routing.json), and nobody can set it: the
    wall clock plays no part. After a boot, or on another machine, the time begins anew.
    """

    routing: Path

    @property
    def path(self) -> Path:
        return self.routing.with_name(f".{self.routing.name}.watch")

    def dwelt_s(self, arm: str, weight: float) -> float:
        """Seconds since this weight was first seen; 0.0 the first time. ``arm``: unique name."""
        boot, now = _boot(), time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            marks = read_json(self.path, _Marks).arms
        except ContractError:  # none yet, or damaged: the time begins anew
            marks = {}
        mark = marks.get(arm)
        if mark is None or mark.boot != boot or mark.weight != weight or mark.seconds > now:
            mark = _Mark(weight=weight, boot=boot, seconds=now)
            aside = self.path.with_name(f"{self.path.name}.new")
            write_json(aside, _Marks(arms={**marks, arm: mark}))
            aside.replace(self.path)
        return now - mark.seconds


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def seconds(text: str) -> float:
    """90s, 5m, 1.5h or 2d in seconds; raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r}; allowed: such as 90s, 5m, 1.5h or 2d")
    return float(match[1]) * _UNITS_S[match[2]]


def weights(text: str) -> tuple[float, ...]:
    """ "0.01,0.05,0.25" as rising weights; raises ValueError."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or list(found) != sorted(set(found)) or not 0 < found[0] <= found[-1] <= 1:
        raise ValueError(f"{text!r}; allowed: rising weights up to 1, such as 0.01,0.05,0.25")
    return found
