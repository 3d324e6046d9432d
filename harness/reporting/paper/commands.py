"""Which runs are behind a cell, and the one command that trains them again."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.reporting.comparison import BASELINE, Contents, Row


@dataclass(frozen=True)
class RerunCommand:
    """The runs of a cell. The command plans them and, where it is trained here, their teacher's; nothing else."""

    run_ids: tuple[str, ...]
    command: str
    missing: int  # of them, without a record
    diverged: int


class RerunCommands:
    """Those of a sweep's cells."""

    def __init__(self, contents: Contents):
        self._contents = contents
        self._seeds = {line: [cell.seed for cell in cells] for line, cells in contents.lines().items()}
        self._teachers = {cell.pair: cell.teacher_run for cell in contents.cells if cell.teacher_run}

    def line(self, row: Row) -> RerunCommand:
        """Of a method on a pair."""
        seeds = self._seeds[row.line]
        count = len(seeds)
        # --only takes those alone that the sweep file lists, and --until-decided adds others.
        said = count if seeds == list(range(count)) else json.dumps(seeds)
        only = (f"method={row.method}", f"teacher={row.teacher}", f"student={row.student}")
        return RerunCommand(row.run_ids, self._command([f"seeds={said}"], only), row.missing, row.diverged)

    def teacher(self, rows: Sequence[Row]) -> RerunCommand | None:
        """Of the teacher of a pair, whose rows these are; None when none of them has one.

        One whose weights are given is measured anew by each run that it teaches.
        """
        pair = rows[0].pair
        if pair not in self._teachers:
            taught = next((row for row in rows if row.method != BASELINE), None)
            return self.line(taught) if taught else None
        alone = json.dumps([{"teacher": pair.teacher, "student": pair.teacher}])
        command = self._command([f"pairs={alone}", *self._contents.teachers_alone])
        return RerunCommand((self._teachers[pair],), command, int(rows[0].teacher_score is None), 0)

    def _command(self, sets: Iterable[str], only: Iterable[str] = ()) -> str:
        options = [part for text in (*self._contents.sets, *sets) for part in ("--set", text)]
        options += [part for text in only for part in ("--only", text)]
        return shlex.join(["python", "-m", "harness.sweep", self._contents.file, *options])
