"""The part of a profile that says what a job asks for at its next start, after it has had too little."""

import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from harness.errors import expected
from harness.spec.recipe import Closed, Finite


def _factor(value: Any) -> float:
    """Return the number of a factor such as ``2x``.

    Raises:
        ValueError: it is written otherwise, or does not lie between 1 and 10.
    """
    found = re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]{1,3})?)x", str(value))
    if not found or not 1 < float(found[1]) <= 10:
        raise ValueError(expected("a factor above 1 and up to 10, such as 2x", value))
    return float(found[1])


Factor = Annotated[float | None, BeforeValidator(_factor)]


class Retry(Closed):
    """Factors by which a job that had too little asks for more, and the limits of what it asks for."""

    mem_gb: Factor = Field(None, description="factor on the memory of a job that has run out of it")
    max_mem_gb: Finite | None = Field(None, gt=0, description="the most memory that a job then asks for")

    time_minutes: Factor = Field(None, description="factor on the time limit of a job that it ended")
    max_time_minutes: int | None = Field(None, ge=1, description="the longest time limit that a job then asks for")
    exclude_nodes: int | None = Field(
        None, ge=0, le=20, description="nodes that a sweep avoids at most, where its jobs end at once"
    )

    @model_validator(mode="after")
    def _limited(self) -> "Retry":
        for factor in ("mem_gb", "time_minutes"):
            limit = f"max_{factor}"
            if (getattr(self, factor) is None) != (getattr(self, limit) is None):
                given, missing = (factor, limit) if getattr(self, factor) else (limit, factor)
                raise ValueError(f"{given} needs {missing}: state the factor and the limit, or neither")
        return self

    def problems(self, asked: Sequence[tuple[int, float | None]]) -> Iterator[tuple[str, str]]:
        """Yield keys that do not go with the minutes and GB that the jobs of a profile ask for at first, and why."""
        longest = max(minutes for minutes, _ in asked)
        if self.max_time_minutes and self.max_time_minutes < longest:
            yield "max_time_minutes", f"{self.max_time_minutes} is less than the {longest} minutes of `resources`"
        for _, mem_gb in asked if self.max_mem_gb else ():
            if mem_gb is None:
                yield "mem_gb", "needs a memory to begin with: state `resources.mem_gb`"
                return
            if self.max_mem_gb and mem_gb > self.max_mem_gb:
                yield "max_mem_gb", f"{self.max_mem_gb:g} GB is less than the {mem_gb:g} GB of `resources`"
                return

    @property
    def most_left(self) -> int:
        """The number of nodes that a job leaves at most, where it ended at once while others work elsewhere."""
        return 2 if self.exclude_nodes is None else self.exclude_nodes

    def memory_after(self, mem_gb: float) -> float:
        """Return the memory to ask for after this much was too little; as much where it is at the limit."""
        if self.mem_gb is None or self.max_mem_gb is None:
            return mem_gb
        return max(mem_gb, min(self.max_mem_gb, mem_gb * self.mem_gb))

    def minutes_after(self, minutes: int) -> int:
        """Return the time limit to ask for after this one was too short; as much where it is at the longest."""
        if self.time_minutes is None or self.max_time_minutes is None:
            return minutes
        return max(minutes, min(self.max_time_minutes, ceil(minutes * self.time_minutes)))

    def memory_steps(self, mem_gb: float) -> list[float]:
        """Return what the starts of a job ask for, one after the other, if each runs out of memory."""
        steps = [mem_gb]
        while (more := self.memory_after(steps[-1])) > steps[-1]:
            steps.append(more)
        return steps
