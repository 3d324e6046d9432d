"""Fixtures of the cluster tests: a SLURM on this machine and a bench that uses it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.loopback import Loopback
from tests.support.bench import Bench, teacher_run
from tests.support.cluster_bench import ARRAY, ClusterBench

# What sites have that refuse most: jobs of unknown QOS or workload, and dependencies that cannot be met.
STRICT = {
    "AccountingStorageEnforce": "associations,limits,qos,wckeys",
    "TrackWCKey": "yes",
    "DependencyParameters": "kill_invalid_depend",
}


@pytest.fixture(scope="package")
def cluster() -> Iterator[Loopback]:
    base = Path(tempfile.mkdtemp(prefix="kd-"))  # short, because paths of unix sockets are limited
    try:
        with Loopback.up(base / "c", nodes=4, extra={"MaxArraySize": str(ARRAY), **STRICT}, gpus=4) as running:
            yield running
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def bench(tmp_path: Path, cluster: Loopback) -> Iterator[ClusterBench]:
    bench = ClusterBench(tmp_path, cluster=cluster)
    yield bench
    bench.clean_up()


@pytest.fixture
def with_teacher(bench: ClusterBench, finished: Bench) -> ClusterBench:
    """A store in which the teacher is trained."""
    bench.take(finished, teacher_run(finished))
    return bench
