"""The curves of records: per epoch what was evaluated, and the means of loss terms and diagnostics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.store import record_stream
from harness.store.store import Store


@dataclass(frozen=True)
class Curve:
    """A number per evaluated epoch; values may be NaN."""

    epochs: NDArray[np.int64]  # rising; 0 and below belong to the first stage
    values: NDArray[np.float64]


Curves = Mapping[str, Curve]  # by name: test_top1, train_ce, ...


def load_curves(store: Store, run_ids: Iterable[str]) -> dict[str, Curves]:
    """Return run id -> curves, for the runs that have a record."""
    curves: dict[str, Curves] = {}
    for table in record_stream.stream_records(store, run_ids, ["run_id", "curves"]):
        curves |= curves_of(table)
        del table  # before the next one is read
    return curves


def curves_of(table: pa.Table) -> dict[str, Curves]:
    """Return run id -> curves, from records with the columns ``run_id`` and ``curves``."""
    if not table.num_rows:
        return {}
    points = table.column("curves").combine_chunks()
    ends = points.offsets.to_numpy()
    epochs, values = (points.values.field(key).to_numpy(zero_copy_only=False) for key in ("epoch", "value"))
    coded = points.values.field("name").dictionary_encode()
    names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    curves: dict[str, Curves] = {}
    alike: dict[bytes, NDArray[np.int64]] = {}  # most curves have the same epochs, which then are in memory once
    for run_id, start, end in zip(table.column("run_id").to_pylist(), ends, ends[1:], strict=False):
        run_codes = codes[start:end]
        positions = {code: start + np.flatnonzero(run_codes == code) for code in dict.fromkeys(run_codes.tolist())}
        of_codes = {code: epochs[i] for code, i in positions.items()}
        of_codes = {code: alike.setdefault(own.tobytes(), own) for code, own in of_codes.items()}
        curves[run_id] = {names[code]: Curve(of_codes[code], values[i]) for code, i in positions.items()}
    return curves


def mean_and_std(curves: Sequence[Curve]) -> tuple[Curve, NDArray[np.float64]]:
    """Return the mean over runs at their common epochs, and the sample standard deviation, which is 0 for one run."""
    common = np.array(curves[0].epochs, np.int64)
    if all(np.array_equal(c.epochs, common) for c in curves):
        values = np.array([c.values for c in curves])
    else:
        common = np.array(sorted(set.intersection(*(set(c.epochs.tolist()) for c in curves))), np.int64)
        values = np.array([c.values[np.isin(c.epochs, common)] for c in curves])
    with np.errstate(invalid="ignore", over="ignore"):  # of runs that diverged
        std = values.std(0, ddof=1) if len(curves) > 1 else np.zeros(len(common))
        return Curve(common, values.mean(0)), std
