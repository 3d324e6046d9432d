"""Fixtures of the integration tests: a bench, a finished store of the small sweep, and a server that starts jobs."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import ENVIRONMENT, SELDOM, Bench, forkserver, teacher_run
from tests.support.warm_python import executable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here as slow: they train, or start processes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _job_server() -> None:
    """Start the process that forks jobs, with the modules that they need imported."""
    environment = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    forkserver.set_forkserver_preload(["tests.support.job_server"])
    forkserver.set_executable(executable())
    process = forkserver.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.clean_up()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The small sweep, run by the command without any disturbance, two jobs at once."""
    bench = Bench(tmp_path_factory.mktemp("finished"), cores=2, checkpoint_seconds=SELDOM)
    base = tmp_path_factory.getbasetemp()
    shared_folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-once"
    with shared_folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first of several workers runs the sweep and the others copy it
        if shared_folder.exists():
            shutil.copytree(shared_folder, bench.folder, dirs_exist_ok=True)
        else:
            result = bench.run("sweep", "--max-parallel", "2")
            assert result.returncode == 0, result.stderr
            shutil.copytree(bench.folder, shared_folder)
    return bench


@pytest.fixture
def with_teacher(bench: Bench, finished: Bench) -> Bench:
    """A store in which the teacher is trained."""
    bench.take(finished, teacher_run(finished))
    return bench
