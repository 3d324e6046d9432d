"""Verification of a store's records: each against its checksum, and the trained weights against their records."""

from dataclasses import dataclass, field

from harness.errors import UserError
from harness.store import checksums, files, parts, records
from harness.store.store import Store


@dataclass
class Verification:
    """The numbers of records and weights that were checked, and a line about each file that is damaged."""

    records: int = 0
    unsealed: int = 0  # of these records: without a checksum
    weights: int = 0
    damage: list[str] = field(default_factory=list)


def verify_records(store: Store) -> Verification:
    """Check every record, compacted or not, and the weights that the store holds of their runs."""
    result, weights = Verification(), dict[str, str]()  # run id -> sha256 of its weights
    try:
        index = store.record_index()
    except UserError as e:
        return Verification(damage=[str(e)])
    for run_id in sorted(index.loose):
        try:
            record = records.read_loose(store, run_id)
        except FileNotFoundError:  # compacted since
            continue
        except UserError as e:
            result.damage.append(str(e))
            continue
        result.records += 1
        result.unsealed += not record.sealed
        weights[run_id] = record.row.column("weights_sha256")[0].as_py()
    generation = index.generation
    for name, run_ids in generation.parts.items() if generation else ():
        assert generation
        try:
            parts.check_part(generation, name)
            rows = parts.read_part(generation, name, frozenset(run_ids), ["run_id", "weights_sha256"])
        except UserError as e:
            result.damage.append(str(e))
            continue
        result.records += len(run_ids)
        result.unsealed += len(run_ids) if generation.digests is None else 0
        columns = (rows.column(name).to_pylist() for name in ("run_id", "weights_sha256"))
        weights |= dict(zip(*columns, strict=True))
    for folder in files.entries(store.root / "runs"):
        if folder.name in weights and (file := store.student_weights(folder.name)).exists():
            result.weights += 1
            sha256 = files.sha256(file)
            if sha256 != weights[folder.name]:
                result.damage.append(f"{file}: sha256 is {sha256}, its record states {weights[folder.name]}")
        if folder.name in weights and (best := store.best_weights(folder.name)).exists():
            try:
                checksums.check_sealed(best)
            except UserError as e:
                result.damage.append(str(e))
    return result
