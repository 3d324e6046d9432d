"""The table of a transfer: the linear probes of networks on another dataset, a line for each method and pair."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.reporting.escape import escape_markdown
from harness.reporting.statistics import Spread
from harness.reporting.tables.columns import PAIR, Lines, spread_text
from harness.reporting.tables.formats import markdown_table
from harness.spec.lines import grouped
from harness.store.transfer_result import TransferResult


@dataclass(frozen=True)
class ProbedNetwork:
    """A network's place in the table, and its result."""

    pair: str
    method: str  # "teacher" of a teacher
    settings: str  # networks with equal ones differ in their seeds only
    seed: int | None  # None: of a given teacher
    same_data: bool  # whether it was trained on the dataset that it is probed on
    result: TransferResult


def table_lines(networks: Sequence[ProbedNetwork]) -> Lines:
    """Return the names of the columns and a line for each method and pair."""
    head = (PAIR, "method", "seeds", "top-1", "L2 weight", "features", "training top-1")
    return [head, *(_line(group) for group in _groups(networks))]


def remarks(networks: Sequence[ProbedNetwork]) -> list[str]:
    """Return what the numbers are, and what is special about some networks."""
    first = networks[0].result
    texts = [
        f"Linear probes on {first.target}, {first.train_images:,} training images, {first.test_images:,} test images, "
        f"content {first.version[:16]}. Top-1 of the test images in %, mean ± sample std over seeds.",
        *(
            f"{each.pair}, {each.method}: was trained on {first.target} itself: no transfer to other data."
            for each in networks
            if each.same_data
        ),
        *(f"{each.pair}, {each.method}: L-BFGS did not converge." for each in networks if not each.result.converged),
    ]
    return list(dict.fromkeys(texts))


def markdown(networks: Sequence[ProbedNetwork]) -> str:
    """Return the table of networks that were probed on the same images, with remarks."""
    escaped = [tuple(map(escape_markdown, line)) for line in table_lines(networks)]
    return "\n".join([markdown_table(escaped), *map(escape_markdown, remarks(networks))])


def to_json(networks: Sequence[ProbedNetwork]) -> dict[str, Any]:
    """Return the table as plain data, with every network's result."""
    return {
        "target": networks[0].result.target,
        "version": networks[0].result.version,
        "lines": [
            {
                "pair": group[0].pair,
                "method": group[0].method,
                **asdict(_spread(group, "top1")),
                "networks": [{"seed": each.seed, "same_data": each.same_data, **asdict(each.result)} for each in group],
            }
            for group in _groups(networks)
        ],
    }


def _groups(networks: Sequence[ProbedNetwork]) -> list[list[ProbedNetwork]]:
    return list(grouped(networks, lambda each: (each.pair, each.method, each.settings)).values())


def _line(group: list[ProbedNetwork]) -> tuple[str, ...]:
    l2 = sorted({each.result.l2 for each in group})
    seeds = ", ".join(str(each.seed) for each in group if each.seed is not None)
    return (
        group[0].pair,
        group[0].method,
        seeds or "-",
        spread_text(_spread(group, "top1")),
        " to ".join(f"{value:.2g}" for value in dict.fromkeys((l2[0], l2[-1]))),
        str(group[0].result.features),
        spread_text(_spread(group, "train_top1")),
    )


def _spread(group: list[ProbedNetwork], metric: str) -> Spread:
    spread = Spread.of(getattr(each.result, metric) for each in group)
    assert spread
    return spread
