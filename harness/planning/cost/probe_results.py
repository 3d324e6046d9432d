"""What ``sweep --probe`` has measured: a small file per pack shape and device. Never a record."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields

from harness.planning.cost.devices import Device
from harness.spec import identity
from harness.store import files
from harness.store.store import Store

# Of a probe's interval: it runs alone on the machine, and for a few steps only.
WIDENING = 1.3


@dataclass(frozen=True)
class ProbeResult:
    """The pace of a pack."""

    shapes: list[str]  # of its runs, see likeness.shape
    hardware: str
    threads: int
    processes: int
    seconds_per_step: list[float]  # of the whole pack, several times
    start_s: float  # from the start of the process to the first step
    checkpoint_bytes: int  # of a checkpoint of every run

    def is_on(self, device: Device) -> bool:
        """Whether it was measured on what a job will have."""
        return device.is_like(self.hardware, self.processes) and (device.gpu or self.threads == device.threads)

    def write(self, store: Store) -> None:
        """In place of an earlier one of the same pack on the same device."""
        of = [sorted(self.shapes), self.hardware, self.threads, self.processes]
        name = identity.digest({"of": of})
        files.replace_json(store.probes / f"{name}.json", asdict(self), durable=False)


def read_probe_results(store: Store) -> list[ProbeResult]:
    """Those that are there and whole."""
    values = (files.read_json(path) for path in sorted(store.probes.glob("*.json")))
    names = {f.name for f in fields(ProbeResult)}
    return [ProbeResult(**value) for value in values if isinstance(value, dict) and set(value) == names]


def largest_within(findings: Collection[ProbeResult], shapes: Collection[str], device: Device) -> ProbeResult | None:
    """The finding that covers most of a pack's runs and no others."""
    inside = [f for f in findings if set(f.shapes) <= set(shapes) and f.is_on(device)]
    return max(inside, key=lambda f: len(f.shapes), default=None)
