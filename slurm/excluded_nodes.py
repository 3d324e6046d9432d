"""Nodes that the jobs of a sweep avoid for a day, because some of them ended there at once."""

import time
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from harness.store import checksums, files, json_files, ownership

SECONDS = 86400.0


@dataclass(frozen=True)
class ExcludedNode:
    __pydantic_config__ = json_files.CLOSED
    node: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    at: json_files.Timestamp
    cause: str
    works_elsewhere: bool = False  # the job whose end there was the reason


@dataclass(frozen=True)
class _Note:
    __pydantic_config__ = json_files.CLOSED
    nodes: tuple[ExcludedNode, ...]


def sweep_of(queue_file: Path) -> str:
    """Return the name of the sweep that a queue is of."""
    return queue_file.stem.rpartition("-")[0]


def excluded_nodes_file(queue_file: Path) -> Path:
    """Return the file of the nodes that the jobs of a queue's sweep avoid: each of its queues has other runs."""
    return queue_file.with_name(f"{sweep_of(queue_file)}.nodes")


def excluded_nodes(queue_file: Path) -> tuple[ExcludedNode, ...]:
    """Return the nodes that the jobs of a queue's sweep avoid now, the first that was noted first."""
    note = json_files.read_if_valid(_Note, excluded_nodes_file(queue_file))
    since = time.time() - SECONDS
    return tuple(node for node in note.nodes if node.at > since) if note else ()


def exclude_node(queue_file: Path, node: str, cause: str, works_elsewhere: bool = False) -> None:
    """Let the further jobs of a queue's sweep avoid a node."""
    _write(queue_file, [*excluded_nodes(queue_file), ExcludedNode(node, time.time(), cause, works_elsewhere)])


def forget_nodes(queue_file: Path, nodes: Container[str]) -> None:
    """Let the further jobs of a queue's sweep use nodes again, unless the job that ended there works elsewhere."""
    excluded = excluded_nodes(queue_file)
    if kept := [node for node in excluded if node.works_elsewhere or node.node not in nodes]:
        _write(queue_file, kept)
    elif excluded:
        excluded_nodes_file(queue_file).unlink(missing_ok=True)


def _write(queue_file: Path, nodes: Iterable[ExcludedNode]) -> None:
    with ownership.writable_by_owner_alone():
        files.replace_json(excluded_nodes_file(queue_file), checksums.seal_value({"nodes": list(map(asdict, nodes))}))


def excluded_nodes_text(queue_files: Iterable[Path]) -> str:
    """Return which nodes the jobs of queues avoid, and why; empty where there is none."""
    nodes = {node.node: node for queue_file in queue_files for node in excluded_nodes(queue_file)}
    causes = (f"{node.node} ({node.cause})" for node in nodes.values())
    return f"nodes that this sweep avoids for a day: {', '.join(causes)}" if nodes else ""
