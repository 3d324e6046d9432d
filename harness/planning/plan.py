"""A sweep's plan: its runs, and which of them are done, failed or to do. Imports no torch."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness.console.terminal import say
from harness.errors import Unreadable, UserError
from harness.planning import locate
from harness.planning.weight_files import GivenWeights
from harness.spec import expand, sweep_file, sweep_plan
from harness.spec.schema import Sweep
from harness.spec.tasks import DatasetInfo
from harness.spec.yamlfile import Document
from harness.store import json_files
from harness.store.store import Store, missing_store
from harness.store.weight_cache import WeightCache
from harness.training.job_order import WeightsFile


@dataclass
class Planned:
    """A sweep, expanded and compared with the store."""

    name: str  # of the comparison: the sweep's, with a mark when --set or --only changed it
    plan: sweep_plan.Plan
    store: Store
    data_root: Path | None
    info: DatasetInfo
    given: GivenWeights

    @property
    def document(self) -> Document:
        return self.plan.document

    @property
    def sweep_name(self) -> str:
        """The sweep's name without the mark of a selection."""
        return self.plan.sweep.name or Path(self.document.source).stem

    @property
    def tuning_name(self) -> str:
        """The name by which the queues of the sweep's tuning go."""
        return f"{self.name}-tuning"

    def data_folder(self) -> Path | None:
        """Return the folder that jobs read the dataset from, see ``locate.data_folder``.

        Raises:
            UserError: there is no such folder.
        """
        return locate.data_folder(self.plan.sweep.dataset, self.info, self.data_root, self.store)

    def variant(
        self, sweep: Sweep, name: str, only: expand.Only | None = None, added: Sequence[sweep_plan.Cell] = ()
    ) -> "Planned":
        """Return the plan of a sweep whose data, teachers and weights are this one's; ``added``: as ``expand`` takes.

        Raises:
            UserError: a mistake in it.
        """
        weights_sha256 = cache(lambda weights: self.given.sha256(weights, fetch=False))
        plan = expand.expand(sweep, self.document, self.info, weights_sha256, only, added)
        plan.dataset_label = self.info.label
        return replace(self, name=name, plan=plan)

    def say_tuned(self) -> None:
        """Say where the settings are that the sweep's tuning chose, if there is one: its file has the entries' own."""
        if self.plan.sweep.tune and (tuned := self.store.tuned_sweep(self.name)).exists():
            say(f"note: this is about the entries' own settings; name {tuned} for those that the tuning chose")

    def say_missing_store(self) -> None:
        """Say that a store of another name than the usual one is not there: the name may be misspelt."""
        if self.store.root != Path("results").resolve() and not self.store.root.is_dir():
            say(f"note: {missing_store(self.store.root)}")

    def states(self) -> dict[str, str]:
        """Return run_id -> done, failed or to do. A running run is to do: locks are asked only where that matters."""
        done, failed = self.store.done_ids(), self.store.failed_ids()
        return {k: "done" if k in done else "failed" if k in failed else "to do" for k in self.plan.runs}

    def weights_files(self, run_ids: Collection[str], fetch: bool = True) -> dict[str, WeightsFile]:
        """Return the files of the given weights of these runs, as jobs look them up.

        ``fetch``: download missing ones; otherwise they are left out.

        Raises:
            UserError: some are missing and unavailable.
        """
        sciences = [self.plan.runs[k].science for k in run_ids]
        sha256s = {t.weights_id: t.sha256 for s in sciences for t in s.given_teachers}
        sha256s |= {start.weights_id: start.sha256 for s in sciences if (start := s.initial_weights)}
        weights: dict[str, WeightsFile] = {}
        for key, sha256 in sorted(sha256s.items()):
            of_teacher = self.plan.weights.get(key)
            source = of_teacher or self.plan.backbones[key]
            with self.document.place(()):
                file = self.given.path(source, sha256) if fetch else self.given.find(source, sha256)
            if file is not None:
                stated = of_teacher.stated(self.info.task.score) if of_teacher else None
                weights[key] = WeightsFile(str(file), stated)
        return weights

    def teacher_notes(self) -> list[str]:
        """Return a line for each given teacher whose images are not normalised as the students' are."""
        notes = []
        for pair in self.plan.sweep.pairs:
            for model, weights in zip(pair.teacher_reference.models, pair.weights_by_teacher, strict=True):
                if weights and (own := weights.normalisation(self.info)):
                    source = "as stated" if weights.stated_normalisation else f"as {weights.name} expects"
                    dataset = self.info.label or self.info.name
                    students = f"students by {self.info.normalisation.text}, those of {dataset}"
                    notes.append(f"teacher {model}: images normalised by {own.text}, {source}; {students}")
        return list(dict.fromkeys(notes))


def plan_sweep(
    file: Path, results: Path, data: Path | None = None, sets: Sequence[str] = (), only: Sequence[str] = (),
    fetch: bool = False,
) -> Planned:  # fmt: skip
    """Read and expand a sweep file. ``fetch``: download given weights whose sha256 is not known.

    Raises:
        UserError: any mistake in it, in the overrides or in what it refers to.
    """
    root = locate.data_root(data)
    sweep, document = sweep_file.load_sweep(file, sets)
    store = Store.at(results)
    given = GivenWeights(root, Path(document.source).resolve().parent, WeightCache.for_store(store))
    with document.place(("dataset",)):
        info = locate.dataset_info(sweep.dataset, root, store)
    name = sweep.name or file.stem
    added = read_added(store.added_seeds(name))
    weights_sha256 = cache(lambda weights: given.sha256(weights, fetch))
    plan = expand.expand(sweep, document, info, weights_sha256, expand.parse_only(only, sweep), added)
    plan.dataset_label = info.label
    if sets or only:
        name += "-" + hashlib.sha256("".join(c.run_id for c in plan.cells).encode()).hexdigest()[:6]
    return Planned(name, plan, store, root, info, given)


def read_added(path: Path) -> list[sweep_plan.Cell]:
    """Return the cells that ``sweep --until-decided`` has added to a sweep in this store.

    Raises:
        UserError: they are unreadable or damaged.
    """
    try:
        return json_files.read_checked(list[sweep_plan.Cell], path)
    except FileNotFoundError:
        return []
    except Unreadable:
        raise
    except UserError as e:
        raise UserError(f"{e}; restore it from a copy") from None
