"""Code of a user's own: which modules its identity covers, and what a job refuses."""

import contextlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.errors import UserError
from harness.spec import methods
from harness.spec.own_code import own_code
from harness.spec.source_code import OwnCode
from harness.store.store import Store
from harness.training.job import check_own_code
from tests.support.sciences import make_science

ALONE = '''"""Mine."""
import torch
from methods.base import Distiller

class Mine(Distiller):
    weights = {"ce": 1.0}
'''


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / f"{name.replace('__in__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def versions(folder: Path, name: str, changed: str, *texts: str) -> list[str]:
    """Return the version of code for each text of a file."""
    out = []
    for text in texts:
        (folder / changed).write_text(text)
        with contextlib.chdir(folder):
            out.append(OwnCode("model", name).version())
    return out


@pytest.mark.parametrize("package", [False, True])
def test_code_without_helpers_keeps_the_version_that_it_always_had(tmp_path: Path, package: bool) -> None:
    folder = tmp_path / "alone" if package else tmp_path
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").write_text('"""Nothing but words."""\n')
    (folder / "mine.py").write_text(ALONE)
    name = "alone.mine:Mine" if package else "mine:Mine"
    assert versions(tmp_path, name, "unrelated.py", "") == ["sha256:ddbab8f2a4e0ae95"]


@pytest.mark.parametrize(
    "statement",
    [
        "from .helper import f",
        "from . import helper",
        "from .helper import *",
        "import pkg.helper",
        "import pkg.helper as h",
        "from pkg import helper",
        "from pkg.helper import f",
        "from .between import f",
        "def late():\n    from .helper import f",
        "try:\n    import pkg.helper\nexcept ImportError:\n    pass",
        "import importlib\nh = importlib.import_module('.helper', __package__)",
        "from importlib import import_module\nh = import_module('pkg.helper')",
        "import beside\n",
    ],
)
def test_a_changed_helper_is_another_version(tmp_path: Path, statement: str) -> None:
    write(tmp_path, pkg__in____init__="", pkg__in__nets=f"{statement}\nclass Net: ...\n", pkg__in__other="A = 1\n")
    write(tmp_path, pkg__in__between="from .helper import f\n", beside="from pkg.helper import f\n")
    text = "def f():\n    return 1\n"
    first, comment, code = versions(tmp_path, "pkg.nets:Net", "pkg/helper.py", text, f"# x\n{text}", text + "B = 2\n")
    assert first == comment != code
    assert versions(tmp_path, "pkg.nets:Net", "pkg/other.py", "A = 1\n", "A = 2\n") == [code, code], "not imported"
    assert versions(tmp_path, "pkg.nets:Net", "pkg/__init__.py", "A = 1\n")[0] not in (first, code), "it is run too"


def test_installed_packages_python_and_the_harness_are_no_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "env/site-packages"
    write(tmp_path, mine="import installed_thing, json, torch, harness.rng\nfrom methods import kd\nclass Net: ...\n")
    write(installed, installed_thing="A = 1\n")
    monkeypatch.syspath_prepend(installed)
    with contextlib.chdir(tmp_path):
        assert OwnCode("model", "mine:Net").modules().keys() == {"mine"}


def test_a_file_next_to_a_module_is_its_helper(tmp_path: Path) -> None:
    write(tmp_path, mine="from my_blocks import f\nclass Net: ...\n")
    first, second = versions(tmp_path, "mine:Net", "my_blocks.py", "f = 1\n", "f = 2\n")
    assert first != second


def test_a_methods_helper_is_part_of_its_version(tmp_path: Path) -> None:
    write(tmp_path, method_with_helper=ALONE + "from method_helper import SCALE\n", method_helper="SCALE = 1\n")
    with contextlib.chdir(tmp_path):
        before = methods.describe_method("method_with_helper:Mine").version
        write(tmp_path, method_helper="SCALE = 2\n")
        methods.describe_own_method.cache_clear()
        assert methods.describe_method("method_with_helper:Mine").version != before


def test_a_helper_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, mine="import broken_helper\nclass Net: ...\n", broken_helper="def (")
    with contextlib.chdir(tmp_path), pytest.raises(UserError, match=r"broken_helper\.py: not a readable Python file"):
        OwnCode("model", "mine:Net").version()


def test_a_job_refuses_code_that_is_not_what_was_planned(tmp_path: Path) -> None:
    write(tmp_path, job_nets="from job_blocks import f\ndef net(num_classes, in_channels): ...\n", job_blocks="f = 1\n")
    store = Store(tmp_path / "results")
    with contextlib.chdir(tmp_path):
        planned = OwnCode("model", "job_nets:net").version()
        science = replace(make_science("job_nets:net(a=1)"), student_source=planned)
        check_own_code(store, science)
        write(tmp_path, job_blocks="f = 2\n")
        with pytest.raises(UserError, match="model 'job_nets:net': its source has changed since the run was planned"):
            check_own_code(store, science)
        method = make_science("digits_net_w4", "job_nets:net")
        with pytest.raises(UserError, match="method 'job_nets:net': its source has changed"):
            check_own_code(store, replace(method, method=replace(method.method, version=planned)))


def test_code_in_the_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path, store__in__inner="def net(num_classes): ...\n", outer="from store.inner import net\n")
    store = Store(tmp_path / "store")
    with contextlib.chdir(tmp_path):
        for name in ("store.inner:net", "outer:net"):
            with pytest.raises(UserError, match="is in the store, from which no code is run"):
                check_own_code(store, make_science(name))


def test_code_that_another_module_hides_is_refused(tmp_path: Path) -> None:
    write(tmp_path, yaml="def net(num_classes): ...\n")
    message = f"is hidden by {yaml.__file__}, which Python has as 'yaml'"
    with contextlib.chdir(tmp_path), pytest.raises(UserError, match=re.escape(message)):
        OwnCode("model", "yaml:net").load()


def test_what_a_run_needs_of_the_users_own(tmp_path: Path) -> None:
    science = make_science("a.b:C(x=1)", "d:E", teacher="f:G")
    assert {str(code) for code in own_code(science)} == {"model 'a.b:C'", "method 'd:E'", "model 'f:G'"}
    assert not own_code(make_science("timm:vit(x=1)", "kd", teacher="resnet20(widths=[1])"))


def test_a_module_is_found_where_it_is_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of a cluster finds the copy of the code first, also where its folder is that of its submission."""
    write(tmp_path, here__in__twice_net="A = 1\n", copy__in__twice_net="A = 2\n")
    code = OwnCode("model", "twice_net:A")
    with contextlib.chdir(tmp_path / "here"):
        assert code.file.parent.name == "here"
        monkeypatch.setattr(sys, "path", [str(tmp_path / "copy"), str(tmp_path / "here"), *sys.path])
        assert code.file.parent.name == "copy" and code.load() == 2
