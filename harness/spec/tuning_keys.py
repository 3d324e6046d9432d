"""Schema of what a tuning reads of a sweep file: the range of a searched setting, and the ``tune`` block."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.spec.recipe import Closed, Finite


class Range(Closed):
    """The numbers from a lowest to a highest one that a search may try: one of ``log`` and ``uniform``."""

    log: tuple[Finite, Finite] | None = Field(None, description="lowest and highest, evenly on a logarithmic scale")
    uniform: tuple[Finite, Finite] | None = Field(None, description="lowest and highest, evenly")

    @model_validator(mode="after")
    def _one_that_rises(self) -> "Range":
        stated = [ends for ends in (self.log, self.uniform) if ends is not None]
        if len(stated) != 1:
            raise ValueError(
                f"expected one of log and uniform, found {'both' if stated else 'neither'}: {{log: [0.1, 10]}}"
            )
        if self.low >= self.high:
            raise ValueError(f"expected the lowest number before a higher one, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: expected numbers above 0, found {self.low:g}; write uniform, or a list")
        return self

    @property
    def low(self) -> float:
        """The lowest number."""
        return (self.log or self.uniform or (0.0, 0.0))[0]

    @property
    def high(self) -> float:
        """The highest number."""
        return (self.log or self.uniform or (0.0, 0.0))[1]


class Tune(Closed):
    """The search of ``python -m harness.tune``: how many trials, on what, and which wins."""

    trials: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="trials of each method; the first has the entry's own settings; required, but for `sampler: grid`",
    )
    validation: int | None = Field(
        None, ge=10, description="training images held out to choose by; a tenth when not stated"
    )
    seeds: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="seeds of each trial: the first ones from 1000 on, none of which is one of the sweep's"
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="who proposes: Optuna's TPE, random values, or every combination of lists"
    )
    together: Annotated[int, Field(ge=1, le=1000)] = Field(
        4, description="trials of a method that are proposed together, before any of their results is known"
    )
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="epochs after which only the best share of a round's trials, `keep`, goes on"
    )
    keep: Finite = Field(0.5, gt=0, lt=1, description="the share of trials that goes on at each of `rungs`")

    @model_validator(mode="after")
    def _consistent(self) -> "Tune":
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError("trials: sampler grid tries every combination; leave trials out")
        if self.sampler != "grid" and self.trials is None:
            raise ValueError("trials is required and missing: the number of trials of each method")
        if "keep" in self.model_fields_set and not self.rungs:
            raise ValueError("keep is without effect where no rungs are stated, for example `rungs: [5]`")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs must rise, found {list(self.rungs)}")
        return self
