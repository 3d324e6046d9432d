"""The plan of a sweep: cells of the comparison, the runs behind them, and the packs that train together."""

from dataclasses import dataclass, field
from typing import Any

from harness.spec.lines import LinePart
from harness.spec.schema import Sweep, Weights, WeightsSource
from harness.spec.science import CLOSED, Science
from harness.spec.yamlfile import Document


@dataclass(frozen=True)
class Run:
    """One student trained once."""

    run_id: str
    science: Science
    label: str  # "resnet56 > resnet20 / kd / seed 0", for people


@dataclass(frozen=True)
class Cell(LinePart):
    """One number of the comparison: (pair, method, seed) and the run that yields it."""

    __pydantic_config__ = CLOSED
    seed: int
    run_id: str
    teacher_run: str | None  # None when the teacher's weights are given, or there are several teachers
    teacher_runs: tuple[str, ...] = ()  # of several teachers: the runs that train some of them

    @property
    def needed_runs(self) -> tuple[str, ...]:
        """The runs that train the cell's teachers."""
        return self.teacher_runs or tuple(filter(None, (self.teacher_run,)))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; the key of several teachers is left out where there are none."""
        return {key: value for key, value in vars(self).items() if value != () or key != "teacher_runs"}


@dataclass(frozen=True)
class Pack:
    """Runs that train together. ``needs`` is the run that trains their teacher, when there is one."""

    run_ids: tuple[str, ...]
    needs: str | None
    but_for_seed: tuple[int, str] | None = None  # equal where only seeds differ: pair and recipe; None: a teacher's
    also_needs: tuple[str, ...] = ()  # the runs that train their further teachers

    @classmethod
    def of(cls, run_ids: tuple[str, ...], needed: tuple[str, ...], but_for_seed: tuple[int, str] | None) -> "Pack":
        """Return a pack whose teachers are trained by the ``needed`` runs."""
        return cls(run_ids, next(iter(needed), None), but_for_seed, needed[1:])

    @property
    def all_needs(self) -> tuple[str, ...]:
        """The runs that train their teachers."""
        return tuple(filter(None, (self.needs, *self.also_needs)))


@dataclass
class Plan:
    """Everything a sweep asks for."""

    sweep: Sweep
    document: Document
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)  # Given.weights_id -> its weights
    backbones: dict[str, WeightsSource] = field(default_factory=dict)  # Start.weights_id -> what networks start from
    sha256_of_source: dict[str, str] = field(default_factory=dict)  # file, address or name of any of these -> sha256
    dataset_label: str = ""  # see DatasetInfo.label; no part of any run
