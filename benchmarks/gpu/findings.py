"""Findings: what the stages of the GPU program measure, one line of JSON each, on disk as soon as it is known."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Finding = dict[str, Any]  # "stage" and "at" are always there


@dataclass(frozen=True)
class Findings:
    """The file of findings in the program's output folder."""

    path: Path

    @classmethod
    def of(cls, folder: Path) -> "Findings":
        return cls(folder / "results.jsonl")

    def add(self, stage: str, **values: Any) -> None:
        """Append a finding; a process that is killed later does not lose it."""
        line = json.dumps({"stage": stage, "at": round(time.time(), 3), **values})
        with self.path.open("a") as file:
            file.write(line + "\n")

    def read(self) -> Iterator[Finding]:
        """Yield the findings so far, oldest first. A line that was cut off is left out."""
        if not self.path.exists():
            return
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and "stage" in value:
                yield value

    def of_stage(self, stage: str, kind: str) -> list[Finding]:
        """Return a stage's findings of a kind, oldest first."""
        return [f for f in self.read() if f["stage"] == stage and f.get("kind") == kind]

    def is_finished(self, stage: str) -> bool:
        """Return whether a stage has done all that it has to do."""
        return bool(self.of_stage(stage, "end")) and bool(self.of_stage(stage, "end")[-1]["finished"])
