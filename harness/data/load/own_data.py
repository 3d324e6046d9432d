"""Data of a user's own class: what it states and holds, checked, and its pixels without any loss.

This runs the user's code, so it belongs into a process of its own.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from harness.data.load import own_images
from harness.data.load.arrays import ArrayDataset, Tell, WrongData
from harness.errors import shorten, unknown
from harness.phrases import some
from harness.spec.normalisation import Normalisation, StatedNormalisation
from harness.store.data_cache import state_of

PARTS = ("train", "test")
_HARNESS = Path(__file__).parents[2]


class OwnData(NamedTuple):
    """The arrays of a user's dataset, and what its class states."""

    arrays: ArrayDataset
    classes: int
    normalisation: Normalisation
    files: tuple[Path, ...]  # that it says it reads
    state: str  # theirs before the images were read, see ``data_cache.state_of``


def read_own(name: str, params: dict[str, Any], root: Path | None, tell: Tell) -> OwnData:
    """Make an object of the class ``package.module:Class`` and read its images.

    Raises:
        WrongData: it raises something, or states or holds what a dataset cannot.
    """
    with _code_of(name, "importing it"):
        module = importlib.import_module(name.partition(":")[0])
    dataset = _made(name, module, params, root)
    with _code_of(name, "its facts"):
        classes, stated = _class_count(dataset), _normalisation(dataset)
        files = _files(dataset, root)
        state = state_of(files)
    parts = []
    for part in PARTS:
        with _code_of(name, part):
            content = _attribute(dataset, part, "images (N, H, W, C) and labels (N,), or a torch Dataset")
            parts += own_images.read_part(content, part, len(stated.mean), lambda *done, part=part: tell(part, *done))
    arrays = ArrayDataset(*parts)
    with _code_of(name, "its images"):
        _check(arrays, classes)
        normalisation = stated.of_channels(arrays.train_images.shape[1], name)
    return OwnData(arrays, classes, normalisation, files, state)


@contextmanager
def _code_of(name: str, what: str) -> Iterator[None]:
    """Raise what goes wrong as WrongData that names the dataset, the part and the line of the user's code."""
    try:
        yield
    except (WrongData, ValueError) as e:
        if isinstance(e, WrongData) or _is_own(e):
            raise WrongData(f"dataset {name!r}: {what}: {e}") from None
        raise WrongData(f"dataset {name!r}: {what}: {_raised(e)}") from None
    except (Exception, SystemExit) as e:
        raise WrongData(f"dataset {name!r}: {what}: {_raised(e)}") from None


def _is_own(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(_HARNESS)


def _raised(error: BaseException) -> str:
    """Return an error with the innermost line that is neither ours nor an installed package's."""
    folders = [_HARNESS, *map(Path, (sys.prefix, sys.base_prefix))]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(Path(f.filename).is_relative_to(folder) for folder in folders)]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {error}{place}"


def _made(name: str, module: Any, params: dict[str, Any], root: Path | None) -> Any:
    with _code_of(name, "its constructor"):
        make = getattr(module, name.partition(":")[2])
        accepted = inspect.signature(make).parameters
        takes_any = any(p.kind == p.VAR_KEYWORD for p in accepted.values())
        if wrong := [key for key in params if key not in accepted and not takes_any]:
            raise WrongData(unknown("argument", wrong[0], accepted.keys() - {"root"}))
        given = dict(params)
        if "root" in accepted and "root" not in params:
            if root is None and accepted["root"].default is inspect.Parameter.empty:
                raise WrongData("it takes the data root: name it with --data DIR or the variable KD_DATA")
            given |= {} if root is None else {"root": root}
        required = [k for k, p in accepted.items() if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
        if missing := [key for key in required if key not in given]:
            raise WrongData(f"it needs {some(missing)}: state `params: {{{missing[0]}: ...}}`")
        return make(**given)


def _attribute(dataset: Any, key: str, what: str) -> Any:
    if not hasattr(type(dataset), key) and not hasattr(dataset, key):
        raise WrongData(f"expected {key}: {what}; it has none")
    value = getattr(dataset, key)
    if inspect.ismethod(value):
        raise WrongData(f"{key} is a method: write @property above it")
    return value


def _class_count(dataset: Any) -> int:
    classes = _attribute(dataset, "classes", "a number, or a list of names")
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool):
        count = int(classes)
    elif isinstance(classes, list | tuple):
        count = len(classes)
        if twice := [name for name in classes if classes.count(name) > 1]:
            raise WrongData(f"classes: {shorten(twice[0])} is there twice")
    else:
        raise WrongData(f"classes: expected a number, or a list of names, found {shorten(classes)}")
    if not 2 <= count <= 1_000_000:
        raise WrongData(f"classes: expected at least 2 and at most 1,000,000, found {count:,}")
    return count


def _normalisation(dataset: Any) -> Normalisation:
    stated = {
        key: _attribute(dataset, key, "a number for each channel, of pixels from 0 to 1") for key in ("mean", "std")
    }
    plain = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in stated.items()}
    try:
        normalisation = StatedNormalisation.model_validate(plain).stated_normalisation
    except ValidationError as e:
        problem = e.errors()[0]
        raise WrongData(f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}") from None
    if normalisation is None:
        raise WrongData("expected mean and std, found None")
    return normalisation


def _files(dataset: Any, root: Path | None) -> tuple[Path, ...]:
    stated = getattr(dataset, "files", ())
    stated = stated() if callable(stated) else stated
    if not isinstance(stated, list | tuple | set) or not all(isinstance(path, str | Path) for path in stated):
        raise WrongData(f"files: expected a list of paths, found {shorten(stated)}")
    paths = sorted(Path.cwd() / (root or "") / Path(path).expanduser() for path in stated)
    if missing := [path for path in paths if not path.exists()]:
        raise WrongData(f"files: there is no {missing[0]}")
    return tuple(paths)


def _check(arrays: ArrayDataset, classes: int) -> None:
    shapes = [images.shape[1:] for images in (arrays.train_images, arrays.test_images)]
    if shapes[0] != shapes[1]:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
        raise WrongData(f"those of train and test are of two sizes, {sizes}: {own_images.ADVICE}")
    for part, targets in zip(PARTS, (arrays.train_targets, arrays.test_targets), strict=True):
        wrong = np.flatnonzero((targets < 0) | (targets >= classes))
        if len(wrong):
            raise WrongData(
                f"label {targets[wrong[0]]} of image {wrong[0]:,} of {part}: expected 0 to {classes - 1}, as there are "
                f"{classes} classes"
            )
    counts = np.bincount(arrays.train_targets, minlength=classes)
    if lacking := np.flatnonzero(counts == 0).tolist():
        raise WrongData(f"train has no image of class {some(list(map(str, lacking)))} of {classes}")
