"""Findings: what the stages of the GPU program measure, one line of JSON each, on disk as soon as it is known."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Finding = dict[str, Any]  # "stage", "kind" and "at" are always there
TRAINING = "row"  # the stage whose findings hold on any card


@dataclass(frozen=True)
class Findings:
    """The file of findings in the program's output folder."""

    path: Path

    @classmethod
    def of(cls, folder: Path) -> "Findings":
        return cls(folder / "results.jsonl")

    def add(self, stage: str, kind: str, **values: Any) -> None:
        """Append a finding; a process that is killed later does not lose it."""
        line = json.dumps({"stage": stage, "kind": kind, "at": round(time.time(), 3), **values}) + "\n"
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # the last line was cut off: keep it apart
                    line = "\n" + line
            file.write(line.encode())

    def read(self) -> list[Finding]:
        """Return the findings so far, oldest first, without lines that were cut off.

        Of findings on another card or with another torch than the last, only those of training count.
        """
        if not self.path.exists():
            return []
        lines = [f for line in self.path.read_text(errors="replace").splitlines() if (f := _finding(line)) is not None]
        machines = [(i, f.get("card"), f.get("torch")) for i, f in enumerate(lines) if f["kind"] == "machine"]
        others = [i for i, *machine in machines if machine != list(machines[-1][1:])]
        first = next((i for i, *_ in machines if i > max(others, default=-1)), 0)
        return [f for i, f in enumerate(lines) if i >= first or f["stage"] == TRAINING]

    def of_stage(self, stage: str, kind: str) -> list[Finding]:
        """Return a stage's findings of a kind, oldest first."""
        return [f for f in self.read() if f["stage"] == stage and f["kind"] == kind]

    def is_finished(self, stage: str) -> bool:
        """Return whether a stage has done all that it has to do."""
        ends = self.of_stage(stage, "end")
        return bool(ends) and ends[-1].get("finished") is True


def _finding(line: str) -> Finding | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and {"stage", "kind", "at"} <= value.keys() else None
