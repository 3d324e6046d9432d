"""Published numbers next to a sweep's own: a column per protocol, and in words why ours are comparable or not.

A pure function of the comparison and the published numbers, so that the same records give the same tables.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from harness.phrases import plural
from harness.reporting.comparison import BASELINE, Comparison, Row
from harness.reporting.published.numbers import Number, Protocol, PublishedNumbers
from harness.reporting.statistics import Verdict, verdict
from harness.spec import datasets, yamlfile
from harness.spec.lines import Line, grouped
from harness.spec.schema import Recipe
from harness.spec.science import DatasetChoice
from harness.spec.sweep_file import SHIPPED_RECIPES
from harness.spec.tasks import CATALOG

MOST_COLUMNS = 4  # on a page's width
SAME_TEACHER = 0.1  # points of accuracy within which two teachers count as one; given weights are held to the same
# Where few numbers are published, those that a source took over or does not say it measured get a column too, and their
# remark says so.
MOST_OF_ANY = 5  # columns there
_ORIGIN = {
    "quoted": "taken over from another source",
    "unstated": "whose numbers they are is not stated",
    "secondary": "a secondary source: from a page about the paper",
}
_EVALUATED_ON = {"test": "test images", "validation": "held-out training images", "train": "training images"}
_DEFAULTS = {  # of keys that files leave out
    key: default
    for task in CATALOG.values()
    for keys in (task.recipe, *(images.views for images in task.images))
    for key, default in keys.items()
}
_EPOCH = {"last": "last epoch", "best": "best test epoch", "unknown": "whether last or best epoch is not stated"}


@dataclass(frozen=True)
class ProtocolCell:
    """One protocol's numbers for one pair and method."""

    numbers: tuple[Number, ...]  # several where the source printed several
    difference: float | None  # ours minus theirs, in points; None unless metric, dataset, epochs and recipe agree
    verdict: Verdict | None  # None unless the teacher agrees too


@dataclass(frozen=True)
class ProtocolColumn:
    """The numbers of one protocol."""

    protocol: Protocol
    cells: Mapping[Line, ProtocolCell]
    remark: str


@dataclass(frozen=True)
class PublishedTable:
    """The second table of a comparison."""

    rows: tuple[Row, ...]
    ours: str  # our own protocol, in words
    columns: tuple[ProtocolColumn, ...]
    rest: str  # how many published numbers are not shown
    score: str  # the metric of every number


@dataclass(frozen=True)
class _Line:
    row: Row
    recipe: Mapping[str, Any]
    dataset: DatasetChoice
    evaluated_on: str
    numbers: Mapping[str, Sequence[Number]]  # of each protocol


def published_table(comparison: Comparison, published: PublishedNumbers | None) -> PublishedTable | None:
    """Return the published numbers of the comparison's pairs and methods; None when there are none to show.

    A line under another name than its method's is a variant (an ablation, say), which has no published numbers.
    """
    if published is None:
        return None
    lines = [line for row in comparison.rows if (line := _line(row, comparison, published))]
    shown = _columns(lines, published, datasets.info_of(comparison.contents.dataset).few_published)
    with_numbers = [line for line in lines if not line.numbers.keys().isdisjoint(shown)]
    if not with_numbers:
        return None
    columns = tuple(_column(published.protocols[key], with_numbers, comparison.contents.margin) for key in shown)
    rows, rest = tuple(line.row for line in with_numbers), _rest(lines, shown, published)
    return PublishedTable(rows, _ours(comparison, with_numbers), columns, rest, comparison.contents.task.score)


def published_dicts(published: PublishedTable | None) -> list[dict[str, Any]]:
    """Return a mapping per published number of the table, for ``--json``."""
    if published is None:
        return []
    return [
        {
            **line._asdict(),
            **_facts(column.protocol),
            published.score: float(number.value),
            "std": float(number.std) if number.std else None,
            f"teacher_{published.score}": number.teacher_accuracy,
            "difference": cell.difference,
            "verdict": verdict_text(cell.verdict),
            "interval": asdict(cell.verdict.interval) if cell.verdict and cell.verdict.interval else None,
        }
        for column in published.columns
        for line, cell in column.cells.items()
        for number in cell.numbers
    ]


def verdict_text(verdict: Verdict | None) -> str:
    return verdict.text if verdict else "not comparable"


def _facts(protocol: Protocol) -> dict[str, str]:
    p = protocol
    facts = {"protocol": p.id, "source": p.source, "epoch": p.epoch, "epochs": p.epochs, "recipe": p.recipe}
    return facts | ({"framework": p.framework, "schedule": p.schedule} if p.framework else {})


def _line(row: Row, comparison: Comparison, published: PublishedNumbers) -> _Line | None:
    numbers = published.of(row.line, comparison.contents.task.score)
    science = comparison.science(row) if numbers else None
    if science is None or science.start:  # without a record there is nothing of ours; papers start from random numbers
        return None
    recipe = science.recipe.model_dump(mode="json")
    values = {**recipe, **science.method.params, **science.method.weights}
    same = [n for n in numbers if all(str(values.get(k)) == v for k, v in n.settings.items())]
    if not same or science.method.use != row.method:
        return None
    by_protocol = grouped(same, lambda number: number.protocol)
    return _Line(row, recipe, science.dataset, comparison.evaluated_on or "test", by_protocol)


def _columns(lines: Sequence[_Line], published: PublishedNumbers, any_origin: bool) -> list[str]:
    """Return the protocols that get a column: our recipes first, then those that add most lines, then the fullest.

    A protocol that adds no line must have half of the lines, and numbers that a source took over from another get no
    column. Neither rule holds with ``any_origin``, where a source's own numbers come before others that add as many.
    """
    lines_of = {key: {i for i, line in enumerate(lines) if key in line.numbers} for key in published.protocols}
    candidates = [k for k, p in published.protocols.items() if (any_origin or p.origin == "own") and lines_of[k]]
    shown: list[str] = []
    covered: set[int] = set()

    def rank(key: str) -> tuple[bool, int, bool, int]:
        protocol, of_protocol = published.protocols[key], lines_of[key]
        return bool(protocol.recipe), len(of_protocol - covered), protocol.origin == "own", len(of_protocol)

    while candidates and len(shown) < (MOST_OF_ANY if any_origin else MOST_COLUMNS):
        best = max(candidates, key=rank)
        candidates.remove(best)
        if any_origin or lines_of[best] - covered or 2 * len(lines_of[best]) >= len(lines):
            shown.append(best)
            covered |= lines_of[best]
    return shown


def _column(protocol: Protocol, lines: Sequence[_Line], margin: float) -> ProtocolColumn:
    cells: dict[Line, ProtocolCell] = {}
    groups: dict[tuple[str, ...], list[_Line]] = {}
    lines = [line for line in lines if protocol.id in line.numbers]
    for line in lines:
        numbers = line.numbers[protocol.id]
        change = numbers[0].recipe_change
        reasons = tuple(protocol_differences(line.recipe, line.dataset, line.evaluated_on, protocol, change))
        groups.setdefault(reasons, []).append(line)
        difference, judged = None, None
        if (ours := line.row.last) and not reasons and len(numbers) == 1:
            theirs = float(numbers[0].value)
            difference = ours.mean - theirs
            _, unlike_teachers = _teachers(protocol, [line])
            judged = None if unlike_teachers else verdict(ours, theirs, margin)
        cells[line.row.line] = ProtocolCell(tuple(numbers), difference, judged)
    recipe = f"recipe {protocol.recipe}" if protocol.recipe else "recipe not known to be one of ours"
    facts = filter(None, (protocol.framework, _EPOCH[protocol.epoch], protocol.length, recipe))
    remarks = [f"{protocol.source}: {', '.join(facts)}."]
    remarks += [_sentence(_ORIGIN[protocol.origin])] if protocol.origin in _ORIGIN else []
    remarks += [_sentence(protocol.note)] if protocol.note else []
    for reasons, group in groups.items():
        remark = _remark(reasons, *_teachers(protocol, group))
        remarks.append(_sentence(remark) if len(groups) == 1 else f"{_names(group, lines)}: {remark}.")
    return ProtocolColumn(protocol, cells, " ".join(remarks))


def protocol_differences(
    recipe: Mapping[str, Any], dataset: DatasetChoice, evaluated_on: str, protocol: Protocol, change: Mapping[str, str]
) -> Iterator[str]:
    """Yield the reasons why our last-epoch number is not comparable with a protocol's; none when it is."""
    info, trained_on = dataset.info, dataset.train_images
    if trained_on != info.train_size:
        yield f"ours trained on {trained_on:,} of the {info.train_size:,} training images"
    if dataset.validation:
        yield "ours evaluated on held-out training images, not on the test set"
    elif evaluated_on == "train":
        yield "ours evaluated on training images, not on a test set"
    elif info.official_test_size not in (0, info.test_size):
        yield f"ours evaluated on {info.test_size:,} images, theirs on the official {info.official_test_size:,}"
    if protocol.epoch == "best":
        yield "ours is the last epoch's, theirs the best test epoch's"
    elif protocol.epoch != "last":
        yield "whether theirs is the last or the best epoch's is not stated"
    if protocol.framework:
        steps = f" of {recipe['epoch_steps']:,} steps" if recipe.get("epoch_steps") else ""
        yield (
            f"ours trained by this harness for {plural(recipe['epochs'], 'epoch')}{steps}, theirs by "
            f"{protocol.framework}, {protocol.schedule}"
        )
        return
    if not protocol.epochs:
        yield "their number of epochs is not stated"
    elif protocol.epochs != str(recipe["epochs"]):
        yield f"ours trained for {plural(recipe['epochs'], 'epoch')}, theirs for {protocol.epochs}"
    if not protocol.recipe:
        yield "their recipe is not known to be one of ours"
        return
    theirs = _recipe(protocol.recipe, tuple(change.items()))
    # How often a run is evaluated does not change what its last epoch gives.
    others = [k for k in theirs if k not in ("epochs", "eval_every") and recipe.get(k) != theirs[k]]
    yield from (f"ours has {k} {_plain(recipe.get(k))}, theirs {_plain(theirs[k])}" for k in others)


def _remark(reasons: tuple[str, ...], alike: list[str], unlike: list[str]) -> str:
    teachers = [f"another teacher (theirs / ours in %: {', '.join(unlike)})"] if unlike else []
    same = f"; the same teacher by its accuracy ({', '.join(alike)})" if alike else ""
    if reasons:
        return f"not comparable with ours: {'; '.join([*reasons, *teachers])}{same}"
    exception = f" except for {teachers[0]}" if teachers else ""
    return f"comparable with ours{exception}{same}"


def _teachers(protocol: Protocol, lines: Sequence[_Line]) -> tuple[list[str], list[str]]:
    """Return the teachers that equal ours by their accuracy, and the others, known or not."""
    alike: dict[str, None] = {}
    unlike: dict[str, None] = {}
    for line in lines:
        if line.row.method == BASELINE:  # it needs no teacher
            continue
        theirs, ours = line.numbers[protocol.id][0].teacher_accuracy, line.row.teacher_score
        if theirs is not None and ours is not None and abs(theirs - ours) <= SAME_TEACHER + 1e-9:
            alike[f"{line.row.teacher} {theirs:.2f} %"] = None
        else:
            unlike[f"{line.row.teacher} {_percent(theirs)} / {_percent(ours)}"] = None
    return list(alike), list(unlike)


def _ours(comparison: Comparison, lines: Sequence[_Line]) -> str:
    recipes = dict.fromkeys(recipe_name(line.recipe) for line in lines)
    epochs = dict.fromkeys(str(line.recipe["epochs"]) for line in lines)
    evaluated = _EVALUATED_ON[comparison.evaluated_on or "test"]
    margin = comparison.contents.margin
    return (
        f"ours: last epoch of {' or '.join(epochs)}, recipe {' or '.join(recipes)}, "
        f"{comparison.train_size or 0:,} training images, evaluated on {comparison.evaluated_size or 0:,} {evaluated}; "
        "methods with the settings of this sweep; mean ± sample std, number of seeds in brackets. Elsewhere, "
        "where comparable, ours minus theirs in brackets. Verdict, where metric, data, recipe and teacher agree: "
        f"reproduced when two one-sided t-tests at 5 % find our mean within {margin:g} points of the published one "
        "(taken as exact), not reproduced when they find it outside, else undecided."
    )


def _rest(lines: Sequence[_Line], shown: Sequence[str], published: PublishedNumbers) -> str:
    not_shown = (n for line in lines for key, numbers in line.numbers.items() if key not in shown for n in numbers)
    others = [published.protocols[number.protocol] for number in not_shown]
    if not others:
        return ""
    own = sum(p.origin == "own" for p in others)
    return (
        f"Not shown: {len(others)} more published numbers for these pairs and methods: {own} of other protocols, "
        f"{len(others) - own} that their source took over or does not say it measured; all are in benchmarks/published."
    )


def _names(group: Sequence[_Line], lines: Sequence[_Line]) -> str:
    """Name the lines of a group; for a complete pair, only the pair."""
    names = []
    for pair, mine in grouped(group, lambda line: line.row.pair).items():
        complete = len(mine) == sum(line.row.pair == pair for line in lines)
        names.append(str(pair) if complete else f"{pair} {', '.join(line.row.method for line in mine)}")
    return "; ".join(names)


@cache
def _recipe(name: str, change: tuple[tuple[str, str], ...] = ()) -> Mapping[str, Any]:
    data = yamlfile.read_yaml(SHIPPED_RECIPES / f"{name}.yaml").data
    return Recipe.model_validate({**data, **dict(change)}).model_dump(mode="json")


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """Return the name of the shipped recipe that equals this one, or differs from it in one setting.

    Other epochs are only called so, as their number stands beside the name wherever it is shown.
    """
    near = "of its own"
    for path in sorted(SHIPPED_RECIPES.glob("*.yaml")):
        theirs = _recipe(path.stem)
        other = [k for k, v in theirs.items() if recipe.get(k) not in (v, _DEFAULTS.get(k) if v is None else v)]
        if not other:
            return path.stem
        if len(other) == 1:
            change = "other epochs" if other == ["epochs"] else f"{other[0]} {_plain(recipe.get(other[0]))}"
            near = f"{path.stem} with {change}"
    return near


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
