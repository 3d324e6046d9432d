"""CIFAR-100 in its official Python layout (Krizhevsky 2009): pickles, read without executing anything."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.load.arrays import ArrayDataset, WrongData

# What a pickled numpy array and byte strings need, and nothing else.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("__builtin__", "bytes"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise WrongData(f"refused to load {module}.{name} from a data file")
        return super().find_class(module, name)


def read_arrays(folder: Path | None) -> ArrayDataset:
    """Read ``train`` (50,000 images) and ``test`` (10,000) with fine labels."""
    assert folder is not None
    train_images, train_targets = _split(folder / "train")
    test_images, test_targets = _split(folder / "test")
    return ArrayDataset(train_images, train_targets, test_images, test_targets)


def _split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as f:
            content = _ArraysOnly(f, encoding="bytes").load()
        images = np.asarray(content[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        targets = np.asarray(content[b"fine_labels"], dtype=np.int64)
    except OSError as e:
        raise WrongData(f"{path}: {e.strerror}") from None
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise WrongData(f"{path}: not a CIFAR-100 file ({type(e).__name__}: {e})") from None
    return images, targets
