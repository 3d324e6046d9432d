"""The history of figures: a file in `history/` for each run that was kept, which later runs are compared with."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu.findings import Finding, Findings
from harness.console.terminal import say

FOLDER = Path(__file__).with_name("history")


@dataclass(frozen=True)
class Figures:
    """The figures of one run of the program. A figure's name says what it is of, and its unit.

    Images per second are those of all runs together that share the card.
    """

    card: str
    torch: str
    commit: str
    date: str  # ISO 8601, UTC
    figures: dict[str, float]

    @classmethod
    def of(cls, findings: Findings) -> "Figures | None":
        """Return the figures of findings; None before the card is known."""
        lines = findings.read()
        machine = next((f for f in reversed(lines) if f.get("kind") == "machine"), None)
        if machine is None:
            return None
        date = datetime.fromtimestamp(machine["at"], UTC).isoformat(timespec="seconds")
        return cls(machine["card"], machine["torch"], machine["commit"], date, dict(_figures(lines)))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Figures":
        return cls(**json.loads(path.read_text()))


def newest(card: str) -> Figures | None:
    """Return the newest figures of this card in the history; None where there are none."""
    same = []
    for path in FOLDER.glob("*.json"):
        try:
            figures = Figures.read(path)
        except (ValueError, TypeError) as error:
            say(f"{path}: not figures of this program ({error})")
        else:
            same += [figures] if figures.card == card else []
    return max(same, key=lambda figures: figures.date, default=None)


def plain_rates(lines: Iterable[Finding]) -> dict[tuple[str, str], float]:
    """Return (pair, precision) -> the images per second of a plain loop that has the card to itself."""
    return {
        (f["pair"], f["precision"]): f["images_per_s"]
        for f in lines
        if f.get("kind") == "plain" and f["processes"] == 1
    }


def memory_per_member(lines: Iterable[Finding]) -> Iterator[tuple[str, float]]:
    """Yield a name and the MiB that each further member of a pack takes, from the largest pack and the next one."""
    packs: dict[tuple[str, str], dict[int, float]] = {}
    for f in lines:
        if f.get("kind") == "ours" and f["methods"] == ["kd"] and f["memory_mib"]:
            packs.setdefault((f["pair"], f["precision"]), {})[f["members"]] = f["memory_mib"]
    for (pair, precision), memory in packs.items():
        if len(memory) > 1:
            less, more = sorted(memory)[-2:]
            yield f"{pair}, {precision}, each further member of a pack", (memory[more] - memory[less]) / (more - less)


def _figures(lines: list[Finding]) -> Iterator[tuple[str, float]]:
    plain = plain_rates(lines)
    for name, mib in memory_per_member(lines):
        yield f"{name}, MiB", round(mib, 1)
    for f in lines:
        kind = f.get("kind")
        if kind in ("copy", "copy to device"):
            yield f"{kind}, GB/s", f["gb_per_s"]
        elif kind == "matrix peak":
            yield f"matrix peak in {f['precision']}, TFLOP/s", f["tflops"]
        elif kind == "ours":
            name = f"{f['pair']} in {f['precision']}, {ours(f)}"
            yield f"{name}, images/s", f["images_per_s_of_all"]
            yield f"{name}, MiB", f["memory_mib"]
            if rate := plain.get((f["pair"], f["precision"])):
                yield f"{name}, times the plain loop", round(f["images_per_s_of_all"] / rate, 3)
        elif kind == "plain":
            yield f"{f['pair']} in {f['precision']}, plain loop x {f['processes']}, images/s", f["images_per_s_of_all"]
        elif kind == "classifier":
            yield f"{f['pair']} in {f['precision']}, batch {f['batch']}, images/s", f["images_per_s"]
        elif kind == "detector":
            yield f"{f['pair']}, s per step of {f['batch']}", f["seconds_per_step"]


def ours(finding: Finding) -> str:
    """Return what a measurement of ours trained: `alone`, `pack of 8`, `pack of 5 methods`, with its options."""
    members, methods = finding["members"], len(finding["methods"])
    name = "alone" if members == 1 else f"pack of {members}" + (" methods" if methods > 1 else "")
    options = {"graphs": "without graphs", "compiled": "teacher compiled"}
    return ", ".join([name, *(text for key, text in options.items() if key in finding)])
