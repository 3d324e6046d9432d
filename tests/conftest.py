"""Run four test files at a time, unless single files are named or ``-n`` or ``-p no:xdist`` is given."""

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
WORKERS = 4  # on two cores, as some wait for SLURM
CLUSTER = "integration/cluster"
FIRST_CLUSTER = {f"tests/{CLUSTER}/{name}.py" for name in ("test_coco", "test_failures", "test_submission")}
ON_GPU = {TESTS / "gpu", TESTS / "__init__.py", TESTS / "conftest.py"}

# Several files at a time leave each one core, and torch's threads would wait for each other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
pytest.register_assert_rewrite("tests.support")  # whose helpers assert


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-timings", action="store_true", help="keep each test file's seconds in tests/timings.json")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until everything is imported
    # A worker may come from the warm process itself, and some tests need a Python of its own.
    sys.executable = os.environ.get("COLD_PYTHON", sys.executable)
    if not only_gpu(config):
        from hypothesis import settings

        settings.register_profile("untimed", deadline=None)  # no test asserts on time
        settings.load_profile("untimed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the other tests, whose packages a machine with a GPU may lack."""
    return True if only_gpu(config) and collection_path.parent == TESTS and collection_path not in ON_GPU else None


def only_gpu(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "gpu")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folders = any(Path(name).is_dir() for name in config.args)
    # Linux, and a path that the first line of a program can name.
    can_be_warm = folders and hasattr(os, "pidfd_open") and len(sys.executable) < 200 and " " not in sys.executable
    python = start_warm_python(config) if can_be_warm and not only_gpu(config) else sys.executable
    if not config.pluginmanager.has_plugin("xdist"):
        return
    from tests.support.timings import Timings  # not before assertions are rewritten

    config.pluginmanager.register(Timings(config.option.write_timings))
    # On a GPU one test after the other: some take all its memory.
    if config.option.numprocesses is None and folders and not only_gpu(config):
        config.option.tx = [f"{WORKERS}*popen//python={python}"]
        config.option.dist = "loadfile"  # a file's tests share a worker, as they share fixtures
        # As collected: the cluster's tests come early and the quick unit tests last, so that all workers end together.
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let two workers run the tests on SLURM, which wait more than they work, while others use the cores."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return f"cluster {file in FIRST_CLUSTER}" if f"/{CLUSTER}/" in file else file

    return Scheduling(config, log)


def start_warm_python(config: pytest.Config) -> str:
    """Let the tests' commands and jobs start from a process that has imported the libraries."""
    from tests.support.warm_python import VARIABLE, warm_python

    program = contextlib.ExitStack()
    os.environ["COLD_PYTHON"] = sys.executable
    os.environ[VARIABLE] = str(program.enter_context(warm_python()))
    config.add_cleanup(program.close)
    return os.environ[VARIABLE]


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collections: each would look through a million objects."""
    gc.freeze()
    gc.enable()
