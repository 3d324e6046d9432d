"""State dicts in a checkpoint: which of them, and which part of its names, is a model's."""

import heapq
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import one_line, unknown
from harness.models.checkpoint_file import WrongFile
from harness.models.checkpoint_tree import state_dicts
from harness.models.older_names import Translation
from harness.models.pickled_data import Global, Placeholder
from harness.models.stored_tensors import FileTensor
from harness.phrases import plural, some
from harness.spec.pretrained import ANYWHERE, Place

Shape = tuple[int, ...]

_MOST_DICTS = 50  # that are tried, the largest
_MOST_PREFIXES = 12  # that are tried for one state dict
_MOST_TRANSLATED = 8  # state dicts whose names are translated, the most promising
_LONGEST = 500  # letters of a prefix
_COUNTERS = ("total_ops", "total_params")  # that thop leaves in a model
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow)(?:[._]|\d|$)|ema_model|modelema", re.IGNORECASE)


class Wanted(NamedTuple):
    """The tensors that a model has."""

    shapes: Mapping[str, Shape]
    unused: tuple[str, ...] = ()  # how names of tensors begin that the file may have and the model does without
    translation: Translation | None = None  # of other names for them

    @classmethod
    def of(cls, model: nn.Module) -> "Wanted":
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        return cls(shapes, translation=getattr(model, "translation", None))

    def are_named(self, names: Collection[str]) -> bool:
        """Return whether these are the names of the model's tensors, but for batch norms' counters of batches."""
        needed = {name for name in self.shapes if not name.endswith("num_batches_tracked")}
        return needed <= set(names) <= self.shapes.keys()

    def translate(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a state dict by the library's translation, without those that are unused."""
        assert self.translation
        translated = self.translation(state, self.shapes)
        return {k: x for k, x in translated.items() if k in self.shapes or not _is_unused(k, self)}


@dataclass(frozen=True)
class Candidate:
    """A state dict in a file, with the model's names."""

    container: str  # its keys from the outermost on, with dots between them
    prefix: str  # that was taken off its names
    wrappers: bool  # whether the names of wrappers of modules were taken off as well
    tensors: Mapping[str, Any]  # by the model's names
    outside: tuple[str, ...]  # other names of the state dict, as they stand in the file
    matching: int  # of the model's tensors, those here with the same shape
    complete: bool  # the model's tensors are here, and no others
    translated_by: str = ""  # the library that knows their names

    @property
    def averaged(self) -> bool:
        return bool(_AVERAGED.search(f"{self.container}.{self.prefix}"))

    @property
    def identity(self) -> Any:
        """Two names for the same tensors have the same."""
        return {name: t for name, t in self.tensors.items() if isinstance(t, FileTensor)}

    def __str__(self) -> str:
        parts = [f"key `{one_line(self.container, 80)}`"] if self.container else []
        parts += [f"prefix `{one_line(self.prefix, 80)}`"] if self.prefix or not parts else []
        return " with ".join(parts)


def choose(tree: Any, wanted: Wanted, place: Place, name: str) -> tuple[Candidate, str]:
    """Return the state dict of a checkpoint that a model's tensors agree with best, and a line on what was taken.

    The line is empty where the file is nothing but the model's state dict. Averaged weights (EMA) are taken only where
    ``place`` says so, or where there are no others.

    Raises:
        WrongFile: there is none, several fit, or ``place`` is not in the file.
    """
    dicts = dict(state_dicts(tree))
    if not dicts:
        raise WrongFile(f"holds no tensors by name{_content(tree)}; expected a model's state_dict()")
    try:
        places = _places(dicts, wanted, place)
    except WrongFile as error:
        raise WrongFile("; ".join(filter(None, (str(error), _elsewhere(dicts, wanted, name))))) from None
    fitting = _distinct([c for c in places if c.complete])
    translated = [] if fitting else _translated(places, wanted)
    fitting = fitting or [c for c in translated if c.complete]
    if translated and not fitting:
        return translated[0], _note(translated[0], [])
    if not fitting:
        # By names first: of a model of another width they all agree, and few shapes do.
        best = max(places, key=partial(_promise, wanted=wanted))
        notes = (_note(best, []), _elsewhere(dicts, wanted, name) if place != ANYWHERE else "")
        return best, "; ".join(filter(None, notes))
    plain = [c for c in fitting if not c.averaged] or fitting
    if len(plain) > 1:
        listed = "; ".join(map(str, plain[:6]))
        raise WrongFile(f"holds {len(plain)} state dicts that fit {name}: state `key` or `prefix` to choose: {listed}")
    return plain[0], _note(plain[0], [c for c in fitting if c is not plain[0]])


def _translated(places: list[Candidate], wanted: Wanted) -> list[Candidate]:
    """Return the candidates that have the model's names once its library has translated them."""
    if not wanted.translation:
        return []
    translated = []
    promising = sorted(places, key=partial(_promise, wanted=wanted), reverse=True)
    for candidate in _distinct(promising)[:_MOST_TRANSLATED]:
        state = wanted.translate(_without_values(candidate))
        if wanted.are_named(state):
            fits = all(tuple(tensor.shape) == wanted.shapes[key] for key, tensor in state.items())
            if fits or not wanted.are_named(candidate.tensors):
                translated.append(replace(candidate, complete=fits, translated_by=wanted.translation.library))
    return translated


def _without_values(candidate: Candidate) -> dict[str, Tensor]:
    tensors = {key: t for key, t in candidate.tensors.items() if isinstance(t, FileTensor)}
    try:
        return {key: torch.empty(t.shape, dtype=t.storage.dtype, device="meta") for key, t in tensors.items()}
    except RuntimeError:  # sizes that no tensor can have
        return {}


def _promise(candidate: Candidate, wanted: Wanted) -> tuple[int, int, bool, int, int]:
    named = _named(candidate, wanted)
    return named, candidate.matching, not candidate.averaged, -len(candidate.outside), len(candidate.tensors)


def _places(dicts: Mapping[str, Mapping[str, Any]], wanted: Wanted, place: Place) -> list[Candidate]:
    """Return the candidates at a place, at least one.

    Raises:
        WrongFile: the file has no such place.
    """
    places = [
        candidate
        for container in _containers(dicts, place.key)
        for candidate in _candidates(container, dicts[container], wanted, place.prefix)
    ]
    if not places:
        raise WrongFile(f"has no names that begin with the prefix {place.prefix!r}; {_names(dicts, place.key)}")
    return places


def _elsewhere(dicts: Mapping[str, Mapping[str, Any]], wanted: Wanted, name: str) -> str:
    """Return what fits a model at other places than the stated one; empty where nothing does."""
    fitting = _distinct([c for c in _places(dicts, wanted, ANYWHERE) if c.complete])
    texts = [str(c) if c.container or c.prefix else "no key and no prefix" for c in fitting[:6]]
    return f"what fits {name}: {'; '.join(texts)}" if texts else ""


def _containers(dicts: Mapping[str, Any], key: str | None) -> list[str]:
    if key is None:
        largest = set(heapq.nlargest(_MOST_DICTS, dicts, key=lambda path: len(dicts[path])))
        return [path for path in dicts if path in largest]
    inside = [key] if key in dicts else [path for path in dicts if path.startswith(f"{key}.")]
    if not inside:
        keys = [path for path in dicts if path][:200]
        if not keys:
            raise WrongFile(f"has no key {one_line(repr(key), 80)}: it is a state dict itself")
        raise WrongFile(f"has an {unknown('key', key, keys)}")
    return inside


def _candidates(container: str, content: Mapping[str, Any], wanted: Wanted, stated: str | None) -> list[Candidate]:
    found = [_candidate(container, content, wanted, prefix) for prefix in _prefixes(content, wanted)]
    if not any(c.complete for c in found):
        bare = {_WRAPPERS.sub("", key): value for key, value in content.items()}
        if len(bare) == len(content) and bare.keys() != content.keys():
            found += [_candidate(container, bare, wanted, prefix, True) for prefix in _prefixes(bare, wanted)]
    # A network that holds another one (a student its teacher) fits too, but for the other's tensors.
    others = tuple(c.prefix for c in found if c.complete and c.prefix)
    if others and not any(c.complete and not c.prefix for c in found):
        outer = {key: value for key, value in content.items() if not key.startswith(others)}
        whole = _candidate(container, outer, wanted, "")
        found += [replace(whole, outside=tuple(content.keys() - outer.keys()))] if whole.complete else []
    if stated is None:
        return found
    return [c for c in found if c.prefix == stated] or (
        [_candidate(container, content, wanted, stated)] if any(key.startswith(stated) for key in content) else []
    )


def _prefixes(content: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Return what may be taken off the names, the most promising first, and always the empty prefix."""
    votes: Counter[str] = Counter()
    for key in content:
        for start in (0, *(match.end() for match in re.finditer(r"\.", key[:_LONGEST]))):
            if key[start:] in wanted.shapes:
                votes[key[:start]] += 1
    shared = os.path.commonprefix(list(content))
    return list(dict.fromkeys((*(prefix for prefix, _ in votes.most_common(_MOST_PREFIXES)), "", shared)))


def _candidate(
    container: str, content: Mapping[str, Any], wanted: Wanted, prefix: str, wrappers: bool = False
) -> Candidate:
    shapes = wanted.shapes
    tensors = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
    outside = [key for key in content if not key.startswith(prefix)]
    for key in [key for key in outside if key in shapes and key not in tensors]:
        tensors[key] = content[key]
        outside.remove(key)
    unused = [name for name in tensors if _is_unused(name, wanted) and name not in shapes]
    tensors = {name: value for name, value in tensors.items() if name not in unused}
    matching = sum(isinstance(t, FileTensor) and shapes.get(name) == t.shape for name, t in tensors.items())
    needed = [name for name in shapes if name in tensors or not name.endswith("num_batches_tracked")]
    complete = matching == len(needed) == len(tensors)
    return Candidate(container, prefix, wrappers, tensors, tuple(outside), matching, complete)


def _is_unused(name: str, wanted: Wanted) -> bool:
    return name.rpartition(".")[2] in (*_COUNTERS, "num_batches_tracked") or name.startswith(wanted.unused)


def _named(candidate: Candidate, wanted: Wanted) -> int:
    return sum(name in wanted.shapes for name in candidate.tensors)


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    distinct: list[Candidate] = []
    for candidate in candidates:
        if all(candidate.identity != other.identity for other in distinct):
            distinct.append(candidate)
    return distinct


def _note(chosen: Candidate, others: list[Candidate]) -> str:
    parts = []
    if chosen.container:
        parts.append(f"taken from `{one_line(chosen.container, 80)}`")
    if chosen.prefix:
        parts.append(f"without the prefix `{one_line(chosen.prefix, 80)}`")
    if chosen.wrappers:
        parts.append("without the names of wrappers (`module.`, `_orig_mod.`)")
    if chosen.translated_by:
        library = chosen.translated_by
        parts.append(f"names of an older {library} or of the model's authors, translated by {library}")
    if chosen.averaged:
        parts.append("these are averaged weights (EMA)")
    if chosen.outside:
        parts.append(f"{plural(len(chosen.outside), 'other')} left out ({_listed(chosen.outside)})")
    if others:
        parts.append(f"averaged weights (EMA) are there too: {'; '.join(map(str, others[:3]))}")
    return ", ".join(parts)


def _listed(names: Iterable[str]) -> str:
    return some([one_line(name[:200], 80) for name in names])


def _names(dicts: Mapping[str, Mapping[str, Any]], key: str | None) -> str:
    return f"they are {_listed(dicts[_containers(dicts, key)[0]])}"


def _content(tree: Any) -> str:
    if isinstance(tree, Placeholder | Global):
        return f" (it is an object of {one_line(tree.name, 80)})"
    if isinstance(tree, FileTensor):
        return " (it is one tensor)"
    if isinstance(tree, dict) and tree:
        kinds = sorted({v.name for v in tree.values() if isinstance(v, Placeholder)})
        about = f"; there are only {_listed(kinds)}" if kinds else ""
        return f" (its keys are {_listed(map(str, tree))}{about})"
    return f" (its content is of type {type(tree).__name__})"
