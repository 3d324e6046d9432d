"""Results of ``sweep --probe``: a small file for each shape of pack and device. They are not records."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field

from harness.planning.cost.devices import Device
from harness.spec import identity
from harness.store import checksums, files, json_files
from harness.store.store import Store

# The widening of a probe's interval: a probe has the machine to itself and runs only a few steps.
WIDENING = 1.3


@dataclass(frozen=True)
class ProbeResult:
    """The measured pace of a pack."""

    __pydantic_config__ = json_files.CLOSED
    shapes: list[str]  # of its runs, see similar_runs.shape
    hardware: str
    threads: int
    processes: int
    seconds_per_step: Annotated[list[float], Field(min_length=1)]  # of the whole pack, several times
    start_s: float  # from the start of the process to the first step
    checkpoint_bytes: int  # of a checkpoint of every run

    def is_on(self, device: Device) -> bool:
        """Return whether it was measured on the device that a job will have."""
        return device.is_like(self.hardware, self.processes) and (device.gpu or self.threads == device.threads)

    def write(self, store: Store) -> None:
        """Write the result in place of an earlier one of the same pack and device."""
        key = [sorted(self.shapes), self.hardware, self.threads, self.processes]
        name = identity.digest({"of": key})
        files.replace_json(store.probes / f"{name}.json", checksums.seal_value(asdict(self)), durable=False)


def read_probe_results(store: Store) -> list[ProbeResult]:
    """Return the store's results; damaged ones are left out with a note."""
    results = (json_files.read_if_valid(ProbeResult, path) for path in files.entries(store.probes, "*.json"))
    return [result for result in results if result]


def largest_within(results: Collection[ProbeResult], shapes: Collection[str], device: Device) -> ProbeResult | None:
    """Return the result that covers most of a pack's runs and no others."""
    inside = [f for f in results if set(f.shapes) <= set(shapes) and f.is_on(device)]
    return max(inside, key=lambda f: len(f.shapes), default=None)
