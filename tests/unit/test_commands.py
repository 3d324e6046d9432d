"""The command without arguments, its versions, and each command's help."""

import importlib
import inspect
import platform
from importlib.metadata import version
from unittest import mock

import pytest

from harness import __version__
from harness.console import app
from tests.support.cli import run_command, run_module


def test_without_arguments_the_command_teaches_in_80_columns() -> None:
    result = run_module("harness")
    assert (result.code, result.err) == (2, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("  harness ")][1] == (
        "  harness sweep benchmarks/digits_pairs.yaml --plan"
    )
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= set(app.COMMANDS)
    assert "{" not in result.out


@pytest.mark.parametrize("arguments", [["--version"], ["sweep", "--version"]])
def test_versions_are_named_without_importing_torch(arguments: list[str]) -> None:
    with mock.patch.dict("sys.modules", {"torch": None}):  # an import would fail
        result = run_module("harness", *arguments)
    assert (result.code, result.err) == (0, "")
    torch = version("torch")
    assert result.out == f"kd-harness {__version__}, Python {platform.python_version()}, torch {torch}\n"


def test_a_command_alone_names_the_versions_too() -> None:
    assert run_command("list", "--version").out.startswith(f"kd-harness {__version__}, ")


@pytest.mark.parametrize("name", app.COMMANDS)
def test_each_command_has_an_example_in_its_help(name: str) -> None:
    text = inspect.getdoc(getattr(importlib.import_module(f"harness.{name}"), name)) or ""
    assert f"python -m harness {name} " in text or f"python -m harness.{name} " in text
