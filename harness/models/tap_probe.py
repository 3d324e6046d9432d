"""The taps of a network of another library, found by running it once on shapes only."""

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.models.layouts import Layout, is_grid, token_layout
from harness.models.matrix_products import MatrixProducts

IMAGES = 3  # of the probe: what has another number of rows is not per image, such as the windows of attention
LAST_AXIS = (nn.LayerNorm, nn.Linear)  # modules that work on the last axis

# Modules that reorder tokens, so that these are no longer row by row: Hiera's.
REORDERING = {"Unroll"}


class Call(NamedTuple):
    """The last call of a module."""

    module: nn.Module
    input: object  # its first one
    output: object


@dataclass
class TapProbe:
    """The results of a network's modules, which are named by their paths."""

    # of those that return maps or tokens, in the order they are done
    layouts: dict[str, Layout] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)  # of these maps
    relus: dict[str, str] = field(default_factory=dict)  # of those that return a ReLU's result: that module
    classifier: str = ""  # the last linear (or, for heads that classify positions, convolution) layer
    linear: set[str] = field(default_factory=set)  # the linear layers
    extra_tokens: int | None = None  # that the network says it puts before those of the patches


def probe_taps(net: nn.Module, image_shape: tuple[int, int, int]) -> TapProbe:
    """Run a copy of the network once, for images (C, H, W)."""
    calls, probe = _run(net, image_shape)
    layouts = _layouts(calls, probe.extra_tokens, (image_shape[1], image_shape[2]))
    for path, layout in layouts.items():
        output = calls.last[path].output
        assert isinstance(output, Tensor)
        probe.layouts[path] = layout
        probe.heights[path] = layout.read(output, (image_shape[1], image_shape[2])).shape[2]
    probe.relus = {path: relu for path, relu in probe.relus.items() if path in layouts}
    return probe


@dataclass
class Calls:
    """The calls of a forward pass: the last one of each path, in the order they are done."""

    products: MatrixProducts
    last: dict[str, Call] = field(default_factory=dict)


def _run(net: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Calls, TapProbe]:
    extra = getattr(net, "num_prefix_tokens", None)
    probe = TapProbe(extra_tokens=extra if isinstance(extra, int) else None)
    calls = Calls(MatrixProducts())
    results: dict[str, Tensor] = {}  # of the ReLUs' last calls

    def hook(path: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.last.pop(path, None)
            probe.relus.pop(path, None)
            calls.last[path] = Call(module, inputs[0] if inputs else None, output)
            if isinstance(output, Tensor) and output.ndim == 4:
                if isinstance(module, nn.ReLU | nn.ReLU6):
                    results[path] = output
                    # It has been called again, by what comes after: its last input is no longer theirs.
                    probe.relus = {k: relu for k, relu in probe.relus.items() if relu != path}
                if relus := [relu for relu, result in results.items() if result is output]:
                    probe.relus[path] = relus[-1]
            if isinstance(module, nn.Linear):
                probe.linear.add(path)
            if isinstance(module, nn.Linear | nn.Conv2d):
                probe.classifier = path

        return note

    twin = _twin(net)
    for path, module in twin.named_modules():
        if path:
            module.register_forward_hook(hook(path))
    with torch.no_grad(), calls.products:
        twin(torch.zeros(IMAGES, *image_shape, device="meta"))
    probe.classifier = _of_images(probe.classifier, calls)
    return calls, probe


def _of_images(classifier: str, calls: Calls) -> str:
    """Return the last linear layer, or, if that classifies tokens, as VOLO's auxiliary head, one of the same classes
    that classifies images."""

    def classes(path: str) -> tuple[int, int] | None:
        output = calls.last[path].output
        return (output.ndim, output.shape[-1]) if isinstance(output, Tensor) else None

    linear = [path for path, call in calls.last.items() if isinstance(call.module, nn.Linear)]
    last = classes(classifier) if classifier else None
    if last and last[0] == 3:
        return next((path for path in reversed(linear) if classes(path) == (2, last[1])), classifier)
    return classifier


def _twin(net: nn.Module) -> nn.Module:
    """Return a copy of the network in eval mode, of shapes only."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    memo |= {id(b): b.detach().to("meta") for b in net.buffers()}
    return copy.deepcopy(net, memo).to("meta").eval()


def _layouts(calls: Calls, declared: int | None, image_size: tuple[int, int]) -> dict[str, Layout]:
    """Return the layout of each result that is a map or tokens of every image, in the order of the calls."""
    factors = calls.products.factors(
        id(call.output) for call in calls.last.values() if isinstance(call.module, nn.BatchNorm2d)
    )
    maps = {
        path: (call, call.output)
        for path, call in calls.last.items()
        if isinstance(call.output, Tensor) and call.output.ndim in (3, 4) and len(call.output) == IMAGES
    }
    layouts = {
        path: Layout(layout)
        for path, (_, x) in maps.items()
        if x.ndim == 4 and id(x) not in factors and (layout := _axes(x, image_size))
    }
    _settle_equal_sizes(layouts, maps)
    areas = {maps[path][1].shape[2:].numel() for path, layout in layouts.items() if layout.kind == "channels_first"}
    for path in [path for path, layout in layouts.items() if layout.kind == "channels_last"]:
        area = maps[path][1].shape[1:3].numel()
        if areas and area > max(areas):  # a position for each pair of tokens
            del layouts[path]
        else:
            areas.add(area)
    sequences = {path: x for path, (_, x) in maps.items() if x.ndim == 3 and id(x) not in calls.products.flattened}
    tokens = {
        path: layout
        for path, x in sequences.items()
        if (layout := token_layout(x.shape[1], declared, image_size, areas))
    }
    layouts |= {path: layout for path, layout in tokens.items() if not _mixes_tokens(path, tokens, calls)}
    only_single = all(sequences[path].shape[1] - layout.extra < 2 for path, layout in tokens.items())
    if _reorders(calls) or (only_single and areas - {1}):  # such as what a layer over channels returns
        layouts = {path: layout for path, layout in layouts.items() if path not in tokens}
    return {path: layouts[path] for path in calls.last if path in layouts}


def _reorders(calls: Calls) -> bool:
    return any(type(call.module).__name__ in REORDERING for call in calls.last.values())


def _axes(x: Tensor, image_size: tuple[int, int]) -> Any:
    """Return the kind of layout of a map with four axes; None if it has no grid."""
    if is_grid((x.shape[2], x.shape[3]), image_size):
        return "channels_first"
    return "channels_last" if is_grid((x.shape[1], x.shape[2]), image_size) else None


def _settle_equal_sizes(layouts: dict[str, Layout], maps: dict[str, tuple[Call, Tensor]]) -> None:
    """Take, for maps as high as they have channels, the layout that their class of modules has elsewhere."""
    unclear = [path for path in layouts if maps[path][1].shape[1] == maps[path][1].shape[3]]
    kinds: dict[type, Counter[Any]] = {}
    for path, layout in layouts.items():
        if path not in unclear:
            kinds.setdefault(type(maps[path][0].module), Counter())[layout.kind] += 1
    for path in unclear:
        module = maps[path][0].module
        if kind := kinds.get(type(module)):
            layouts[path] = Layout(kind.most_common(1)[0][0])
        elif isinstance(module, LAST_AXIS):
            layouts[path] = Layout("channels_last")


def _mixes_tokens(path: str, tokens: Iterable[str], calls: Calls) -> bool:
    """Return whether a module works on tokens whose axes N and C are exchanged, such as a mixer's first MLP."""
    results = {id(calls.last[token].output) for token in tokens}
    names = path.split(".")
    outer = (".".join(names[:depth]) for depth in range(1, len(names) + 1))
    inputs = (calls.last[module].input for module in outer if module in calls.last)
    return any(id(calls.products.swaps.get(id(x))) in results for x in inputs)
