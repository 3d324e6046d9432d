"""Nodes that the jobs of a queue avoid for a day, because one of them ended there before any run began."""

import time
from collections.abc import Iterable
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


@dataclass(frozen=True)
class _Note:
    __pydantic_config__ = json_files.CLOSED
    nodes: tuple[ExcludedNode, ...]


def excluded_nodes_file(queue_file: Path) -> Path:
    """Return the file of the nodes that the jobs of a queue avoid."""
    return queue_file.with_suffix(".nodes")


def excluded_nodes(queue_file: Path) -> tuple[ExcludedNode, ...]:
    """Return the nodes that the jobs of a queue avoid now, the first that was noted first."""
    note = json_files.read_if_valid(_Note, excluded_nodes_file(queue_file))
    since = time.time() - SECONDS
    return tuple(node for node in note.nodes if node.at > since) if note else ()


def exclude_node(queue_file: Path, node: str, cause: str) -> None:
    """Let the further jobs of a queue avoid a node."""
    nodes = [*excluded_nodes(queue_file), ExcludedNode(node, time.time(), cause)]
    with ownership.writable_by_owner_alone():
        files.replace_json(excluded_nodes_file(queue_file), checksums.seal_value({"nodes": list(map(asdict, nodes))}))


def excluded_nodes_text(queue_files: Iterable[Path]) -> str:
    """Return which nodes the jobs of queues avoid, and why; empty where there is none."""
    nodes = {node.node: node for queue_file in queue_files for node in excluded_nodes(queue_file)}
    causes = (f"{node.node} ({node.cause})" for node in nodes.values())
    return f"nodes that this sweep avoids for a day: {', '.join(causes)}" if nodes else ""
