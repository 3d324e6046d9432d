"""The names that readers know prepared datasets by, in a store with several."""

from collections import Counter
from collections.abc import Iterable

from harness.reporting.comparison import Contents
from harness.reporting.leaderboard.entries import LeaderboardEntry

DIGITS = 6  # of a version, where two have one name


def dataset_labels(entries: Iterable[LeaderboardEntry], contents: Iterable[Contents]) -> dict[str, str]:
    """Return the name of each protocol's dataset, if tables give it one; all of them where it has several. Datasets of
    one name are told apart by digits of their versions.
    """
    of_run = {cell.run_id: table.dataset_label for table in contents for cell in table.cells if table.dataset_label}
    labels: dict[str, set[str]] = {}  # by version of the content
    versions: dict[str, str] = {}  # by protocol
    for entry in entries:
        version = versions[entry.protocol.id] = entry.science.dataset.version
        labels.setdefault(version, set()).update(of_run[run_id] for run_id in entry.run_ids if run_id in of_run)
    names = {version: " or ".join(sorted(given)) for version, given in labels.items() if given}
    shared = Counter(names.values())
    shown = {v: f"{name} ({v[:DIGITS]})" if shared[name] > 1 else name for v, name in names.items()}
    return {protocol: shown[version] for protocol, version in versions.items() if version in shown}
