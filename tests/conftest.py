"""Run two test files at a time, unless single files are named or ``-n`` or ``-p no:xdist`` is given."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# Two files at a time leave each one core, and torch's threads would wait for each other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("tests.support")  # whose helpers assert
settings.register_profile("untimed", deadline=None)  # no test asserts on time
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-timings", action="store_true", help="keep each test file's seconds in tests/timings.json")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("xdist") or "PYTEST_XDIST_WORKER" in os.environ:
        return
    from tests.support.timings import Timings  # not before assertions are rewritten

    config.pluginmanager.register(Timings(config.option.write_timings))
    if config.option.numprocesses is None and any(Path(name).is_dir() for name in config.args):
        config.option.numprocesses = 2
        config.option.dist = "loadfile"  # a file's tests share a worker, as they share fixtures
        # As collected: the cluster's tests come early and the quick unit tests last, so that both workers end together.
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collections: each would look through a million objects."""
    gc.collect()
    gc.freeze()
