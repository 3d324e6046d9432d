"""The costs of a plan's packs, on the devices that their jobs are placed on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.planning.cost.devices import Device, DeviceOf
from harness.planning.cost.interval import Interval
from harness.planning.cost.pack import PackCost, PackCosts
from harness.planning.plan import Planned
from harness.spec.science import Science
from harness.spec.sweep_plan import Pack


@dataclass(frozen=True)
class PlanCosts:
    """The costs of a plan's packs. Each kind of pack is predicted once."""

    planned: Planned
    device: DeviceOf
    known: PackCosts
    _costs: dict[Any, PackCost] = field(default_factory=dict)

    def of_pack(self, pack: Pack) -> PackCost:
        """Return the cost of a pack in a job of its own."""
        sciences = self.sciences(pack)
        methods = tuple(id(science.method) for science in sciences)  # the runs of a pair and method share that object
        if methods not in self._costs:
            self._costs[methods] = self.known.cost(sciences, self.device_of(pack))
        return self._costs[methods]

    def seconds(self, packs: Sequence[Pack]) -> Interval | None:
        """Return the seconds of a job that trains these packs; None where nothing is known of any."""
        costs = [self.of_pack(pack) for pack in packs]
        known = [cost.seconds for cost in costs if cost.seconds]
        if not known:
            return None
        start = costs[0].start or Interval(0.0, 0.0, 0.0)
        return Interval.sum(known) + start * (1 - len(known))

    def device_of(self, pack: Pack) -> Device:
        """Return the device that the pack's job is placed on."""
        sciences = self.sciences(pack)
        return self.device(next((science for science in sciences if science.teacher), sciences[0]))

    def sciences(self, pack: Pack) -> list[Science]:
        return [self.planned.plan.runs[k].science for k in pack.run_ids]
