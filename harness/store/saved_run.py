"""A finished run as a store holds it: its settings and its trained weights."""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, shorten, unknown
from harness.spec import datasets, tasks
from harness.spec.model_reference import ModelReference
from harness.spec.own_models import is_own_model
from harness.spec.science import DatasetChoice, Science
from harness.store import checksums, files, records
from harness.store.store import Store

EPOCHS = ("last", "best")


@dataclass(frozen=True)
class SavedRun:
    """A finished run and the file of its weights after an epoch."""

    run_id: str
    science: Science
    epoch: str  # last or best
    file: Path
    sha256: str | None  # that the file should have; None: it was just written


def find_saved_run(store: Store, prefix: str, epoch: str, option: str) -> SavedRun:
    """Return the finished run whose id starts with ``prefix``. ``option``: what named it, for messages.

    Raises:
        UserError: there is no such run or epoch, or its settings are of other versions of the libraries.
    """
    if epoch not in EPOCHS:
        raise UserError(unknown("epoch", epoch, EPOCHS))
    run_id = store.find(prefix, option)
    (row,) = records.read_records(store, [run_id], ["science", "weights_sha256", "best_epoch"]).to_pylist()
    science = Science.from_text(row["science"])
    try:
        _check_dataset(science.dataset)
        if not is_own_model(science.student):  # whose source is looked for once the user has named it
            tasks.resolve_model(science.student)
    except ValueError as e:  # the record comes from others, or from other versions of the libraries
        raise UserError(f"{option} {run_id}: {e}") from None
    if epoch == "last":
        return SavedRun(run_id, science, epoch, store.student_weights(run_id), row["weights_sha256"])
    file = store.best_weights(run_id)
    if file.exists():
        checksums.check_sealed(file)
        return SavedRun(run_id, science, epoch, file, files.sha256(file))
    if row["best_epoch"] == (science.recipe.stop_epoch or science.recipe.epochs):
        return SavedRun(run_id, science, epoch, store.student_weights(run_id), row["weights_sha256"])
    raise UserError(
        f"{option} {run_id}: the weights of its best epoch ({row['best_epoch']}) were not kept: "
        "`sweep --keep-best` keeps those of the runs that it trains"
    )


def _check_dataset(choice: DatasetChoice) -> None:
    """Check that there is such a dataset, and that a record states what only the dataset's content tells.

    Raises:
        ValueError: there is none, or the record is incomplete.
    """
    datasets.check_name(ModelReference.parse(choice.name).name)
    needed = {"classes", "image_shape"}.intersection(datasets.stated_keys(datasets.info_of(choice.name)))
    if missing := [key for key in sorted(needed) if getattr(choice, key) is None]:
        raise ValueError(f"the record does not state {missing[0]} of its dataset {shorten(choice.name)}")
