"""The stages of a network of another library: which of its modules they are."""

from typing import Any

from torch import nn

from harness.models.layouts import Layout
from harness.models.tap_probe import TapProbe

FEWEST_BLOCKS = 7  # for stages after the second, the fourth, the last but two and the last block


def named_stages(net: nn.Module, probe: TapProbe, image_height: int) -> dict[str, str]:
    """Return the paths of the modules for ``stem`` (if the network has one), ``stage1``, ..."""
    info: Any = getattr(net, "feature_info", None)
    paths = [entry["module"] for entry in info if entry["module"] in probe.layouts] if info else []
    if info and not paths:  # its stages return something else, such as the maps of two branches
        return {}
    if works_on_tokens(probe, paths):
        return _stages_of_tokens(net, probe, paths)
    maps = {path: probe.heights[path] for path, layout in probe.layouts.items() if layout.kind == "channels_first"}
    if not info:
        paths = _last_of_each_size(maps)
    stem = {"stem": paths.pop(0)} if paths and maps[paths[0]] > image_height / 3 else {}
    return stem | {f"stage{i}": path for i, path in enumerate(paths, start=1)}


def token_taps(net: nn.Module, probe: TapProbe, stages: dict[str, str]) -> dict[str, tuple[str, Layout]]:
    """Return module and layout of ``tokens``, the patches after the last norm, and of ``cls``, the class token."""
    if getattr(net, "feature_info", None) and not stages:
        return {}
    if not works_on_tokens(probe, list(stages.values())) or not (path := _last_tokens(probe)):
        return {}
    layout = probe.layouts[path]
    taps = {"tokens": (path, layout)}
    return taps | ({"cls": (path, Layout("class_token"))} if layout.extra and _has_class_token(net) else {})


def _has_class_token(net: nn.Module) -> bool:
    """Return whether the first token is one for the class, which registers are not."""
    tokens = [getattr(m, name) for m in net.modules() for name in ("cls_token", "class_token") if hasattr(m, name)]
    return any(token is not None for token in tokens) if tokens else True


def works_on_tokens(probe: TapProbe, stages: list[str]) -> bool:
    """Return whether a network's stages, or its outer modules, return tokens or maps with the channels last."""
    outer = [path for path in probe.layouts if "." not in path]
    return any(probe.layouts[path].kind != "channels_first" for path in stages or outer)


def _stages_of_tokens(net: nn.Module, probe: TapProbe, paths: list[str]) -> dict[str, str]:
    last = _last_tokens(probe)
    rows = {path: layout for path, layout in probe.layouts.items() if layout.kind != "channels_first"}
    if not paths:
        heights = {path: probe.heights[path] for path in rows}
        before = dict(list(heights.items())[: list(heights).index(last)]) if last in heights else heights
        paths = _last_of_each_size(before, least=1) or _blocks(net, rows)
    if len({probe.heights[path] for path in paths}) == 1:
        paths = [paths[end - 1] for end in stage_ends(len(paths))]
    names = next(iter(probe.layouts)).split(".")
    outer = (".".join(names[:depth]) for depth in range(1, len(names) + 1))
    first = next(path for path in outer if path in probe.layouts)
    stem = {} if first in paths else {"stem": first}
    return stem | {f"stage{i}": path for i, path in enumerate(paths, start=1)}


def stage_ends(blocks: int) -> list[int]:
    """Return the numbers of the blocks, from 1, after which the stages of an isotropic network end.

    They are those of OFA-KD's ViT, DeiT, Mixer and ResMLP (2, 4, 10 and 12 of 12 blocks) and BEiT v2 (2, 4, 22 and 24
    of 24): github.com/Hao840/OFAKD, custom_forward/. Small networks have four parts of equal depth.
    """
    ends = [2, 4, blocks - 2, blocks] if blocks >= FEWEST_BLOCKS else [-(-blocks * i // 4) for i in (1, 2, 3, 4)]
    return sorted(set(ends))


def _last_of_each_size(heights: dict[str, int], least: int = 2) -> list[str]:
    """Return the last of the outer modules of each height, if there are three heights or more."""
    of_size: dict[int, str] = {}
    for path, height in heights.items():
        if height >= least and path.count(".") <= of_size.get(height, "features.0").count("."):
            of_size[height] = path
    return list(of_size.values()) if len(of_size) > 2 else []


def _blocks(net: nn.Module, layouts: dict[str, Layout]) -> list[str]:
    """Return the outermost row of modules of one class, in a list of modules, that return tokens."""
    rows: dict[tuple[str, type], list[str]] = {}
    for path in layouts:
        parent, _, _ = path.rpartition(".")
        if parent and isinstance(net.get_submodule(parent), nn.ModuleList | nn.Sequential):
            rows.setdefault((parent, type(net.get_submodule(path))), []).append(path)
    return min(reversed(rows.values()), key=lambda row: (row[0].count("."), -len(row)), default=[])


def _last_tokens(probe: TapProbe) -> str:
    """Return the last of the outermost modules that return tokens or maps with the channels last; "" without any."""
    rows = [path for path, layout in probe.layouts.items() if layout.kind != "channels_first"]
    rows = [path for path in rows if path not in probe.linear]  # a head that classifies positions
    outermost = min((path.count(".") for path in rows), default=0)
    return next((path for path in reversed(rows) if path.count(".") == outermost), "")
