"""State dicts in a checkpoint: which of them, and which part of its names, is a model's."""

import heapq
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from harness.errors import one_line, unknown
from harness.models.checkpoint_file import WrongFile
from harness.models.pickled_data import Global, Placeholder
from harness.models.stored_tensors import FileTensor
from harness.phrases import plural, some
from harness.spec.pretrained import ANYWHERE, Place

Shape = tuple[int, ...]

_MOST_NODES = 100_000  # of a checkpoint's content that are searched
_DEEPEST = 40
_NODES = dict | list | tuple | Placeholder
_MOST_DICTS = 50  # that are tried, the largest
_MOST_PREFIXES = 12  # that are tried for one state dict
_LONGEST = 500  # letters of a prefix
_COUNTERS = ("total_ops", "total_params")  # that thop leaves in a model
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow)(?:[._]|\d|$)|ema_model|modelema", re.IGNORECASE)


class Wanted(NamedTuple):
    """The tensors that a model has."""

    shapes: Mapping[str, Shape]
    unused: tuple[str, ...] = ()  # how names of tensors begin that the file may have and the model does without

    @classmethod
    def of(cls, model: nn.Module) -> "Wanted":
        return cls({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})


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
    if not fitting:
        # By names first: of a model of another width they all agree, and few shapes do.
        best = max(places, key=lambda c: (_named(c, wanted), c.matching, not c.averaged, -len(c.outside)))
        notes = (_note(best, []), _elsewhere(dicts, wanted, name) if place != ANYWHERE else "")
        return best, "; ".join(filter(None, notes))
    plain = [c for c in fitting if not c.averaged] or fitting
    if len(plain) > 1:
        listed = "; ".join(map(str, plain[:6]))
        raise WrongFile(f"holds {len(plain)} state dicts that fit {name}: state `key` or `prefix` to choose: {listed}")
    return plain[0], _note(plain[0], [c for c in fitting if c is not plain[0]])


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


def state_dicts(tree: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all mappings with tensors in a checkpoint, outer ones first: their keys, with dots between, and content."""
    queue: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    seen: set[int] = set()
    while queue and len(seen) < _MOST_NODES:
        path, node = queue.popleft()
        if id(node) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(node))
        children = _children(node)
        content = {k: v for k, v in children.items() if isinstance(v, FileTensor | Placeholder)}
        if any(isinstance(v, FileTensor) for v in content.values()):
            yield ".".join(path), content
        inner = ((key, child) for key, child in children.items() if isinstance(child, _NODES))
        queue += [((*path, key), child) for key, child in inner]


def _children(node: Any) -> dict[str, Any]:
    if isinstance(node, list | tuple):
        return {str(i): child for i, child in enumerate(node[:100])}
    if isinstance(node, Placeholder):
        if isinstance(node.state, dict) and isinstance(node.state.get("_modules"), dict):
            return dict(_of_module(node, "", set()))
        node = node.items or node.state
    return {str(k): v for k, v in node.items() if isinstance(k, str)} if isinstance(node, dict) else {}


def _of_module(module: Placeholder, prefix: str, above: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the state dict of a network that was saved whole."""
    state = module.state if isinstance(module.state, dict) else {}
    if id(module) in above or len(above) > _DEEPEST:
        return
    for kind in ("_parameters", "_buffers"):
        tensors = state.get(kind)
        for name, tensor in tensors.items() if isinstance(tensors, dict) else ():
            if isinstance(tensor, FileTensor):
                yield f"{prefix}{name}", tensor
    children = state.get("_modules")
    for name, child in children.items() if isinstance(children, dict) else ():
        if isinstance(child, Placeholder):
            yield from _of_module(child, f"{prefix}{name}.", above | {id(module)})


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
