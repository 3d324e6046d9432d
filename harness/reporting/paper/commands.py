"""The runs behind a cell, and the one command that trains them again."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.reporting.comparison import BASELINE, Contents, Row
from harness.spec.teacher_reference import TeacherReference


@dataclass(frozen=True)
class RerunCommand:
    """The runs of a cell. The command plans only them and, where it is trained here, their teacher's."""

    run_ids: tuple[str, ...]
    command: str
    missing: int  # runs without a record
    diverged: int


class RerunCommands:
    """The commands for a sweep's cells."""

    def __init__(self, contents: Contents):
        self._contents = contents
        self._seeds = {line: [cell.seed for cell in cells] for line, cells in contents.lines().items()}
        self._teachers = {cell.pair: cell.teacher_run for cell in contents.cells if cell.teacher_run}

    def method(self, row: Row) -> RerunCommand:
        """Return the command for a method on a pair."""
        seeds = self._seeds[row.line]
        # --only selects among the sweep file's seeds, and --until-decided adds others.
        setting = len(seeds) if seeds == list(range(len(seeds))) else json.dumps(seeds)
        only = (f"method={row.method}", f"teacher={row.teacher}", f"student={row.student}")
        return RerunCommand(row.run_ids, self._command([f"seeds={setting}"], only), row.missing, row.diverged)

    def teacher(self, rows: Sequence[Row]) -> RerunCommand | None:
        """Return the command for the teacher of a pair, given the pair's rows; None when no row has a teacher.

        A teacher whose weights are given is measured by each run that learns from it.
        """
        pair = rows[0].pair
        if pair not in self._teachers:
            distilled = next((row for row in rows if row.method != BASELINE), None)
            return self.method(distilled) if distilled else None
        missing = int(rows[0].teacher_score is None)
        if not TeacherReference.parse(pair.teacher).is_model:  # whoever learns from it needs the same run
            learner = next((row for row in rows if row.method != BASELINE), rows[0])
            return replace(self.method(learner), run_ids=(self._teachers[pair],), missing=missing, diverged=0)
        pairs = json.dumps([{"teacher": pair.teacher, "student": pair.teacher}])
        command = self._command([f"pairs={pairs}", *self._contents.teachers_alone])
        return RerunCommand((self._teachers[pair],), command, missing, 0)

    def _command(self, sets: Iterable[str], only: Iterable[str] = ()) -> str:
        options = [part for text in (*self._contents.sets, *sets) for part in ("--set", text)]
        options += [part for text in only for part in ("--only", text)]
        return shlex.join(["python", "-m", "harness.sweep", self._contents.file, *options])
