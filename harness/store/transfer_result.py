"""The kept result of a linear probe: how a trained network's features serve another dataset."""

from dataclasses import asdict, dataclass

from harness.store import checksums, files, json_files
from harness.store.store import Store

PROTOCOL = 1  # raised when the same network and images would get other numbers


@dataclass(frozen=True)
class TransferResult:
    """A linear probe of one network on a target dataset. Accuracies are in %."""

    __pydantic_config__ = json_files.CLOSED
    network: str  # the run's id, or what tells a given teacher's weights from others
    weights_sha256: str
    target: str  # the dataset's name
    version: str  # of its content
    protocol: int
    train_images: int
    test_images: int
    features: int  # how many the network gives
    l2: float  # of the grid, as chosen
    held_out_top1: float
    train_top1: float
    top1: float
    converged: bool

    def write(self, store: Store) -> None:
        """Keep it in the store.

        Raises:
            DiskFull: the disk is full; nothing is left behind.
        """
        path = store.transfer(self.network, self.target, self.version)
        files.replace_json(path, checksums.seal_value(asdict(self)))


def read_kept(store: Store, network: str, weights_sha256: str, target: str, version: str) -> TransferResult | None:
    """Return the kept result; None where there is none, a damaged one, or one of other weights, content or protocol."""
    kept = json_files.read_if_valid(TransferResult, store.transfer(network, target, version))
    wanted = network, weights_sha256, target, version, PROTOCOL
    if kept and (kept.network, kept.weights_sha256, kept.target, kept.version, kept.protocol) == wanted:
        return kept
    return None
