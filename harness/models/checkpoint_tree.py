"""A checkpoint's content, searched for mappings with tensors."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from harness.models.pickled_data import Placeholder
from harness.models.stored_tensors import FileTensor

_MOST_NODES = 100_000  # of a checkpoint's content that are searched
_DEEPEST = 40
_NODES = dict | list | tuple | Placeholder


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
