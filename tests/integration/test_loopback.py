"""The loopback cluster: a real SLURM that starts from nothing, simulates faults and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from slurm.loopback import Loopback, config, packages
from slurm.loopback.cluster import down
from tests.support.cli import PATIENCE

REPOSITORY = Path(__file__).parents[2]
NODE_PATIENCE = 300.0  # seconds until nodes and jobs change their states; a loaded machine takes a minute


def needs_slurm(test: Callable[..., None]) -> Callable[..., None]:
    absent = packages.missing()
    skip = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}; {packages.APT}")
    return skip(test)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path: unix sockets limit it, and pytest's own may be too long."""
    base = Path(tempfile.mkdtemp(prefix="kd-"))
    yield base / "c"
    down(base / "c")
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Loopback]:
    base = Path(tempfile.mkdtemp(prefix="kd-"))
    with Loopback.up(base / "c", nodes=4) as running:
        yield running
    shutil.rmtree(base)


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slurm.loopback", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def sbatch(cluster: Loopback, script: str, *options: str) -> str:
    """Submit a job and return its id."""
    result = cluster.client("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}")
    return result.split(";")[0].strip()


def states(cluster: Loopback, job: str) -> list[str]:
    """Return each task's state as accounting reports it."""
    return cluster.client("sacct", "-n", "-X", "-P", "-j", job, "-o", "State").split()


def eventually(condition: Callable[[], bool], seconds: float = NODE_PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.2)


def mentioning(*texts: str) -> list[str]:
    """Return other live processes with all of ``texts`` in their command line, environment or open files."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    continue
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                line += "\0".join(os.readlink(fd) for fd in (entry / "fd").iterdir()).encode()
            except OSError:
                continue
            if all(text.encode() in line for text in texts):
                processes.append(f"{entry.name}: {(entry / 'cmdline').read_bytes()!r}")
    return processes


@needs_slurm
def test_nodes_are_idle_and_an_array_runs_on_several_of_them(cluster: Loopback) -> None:
    assert cluster.node_states() == {f"node{i}": "idle" for i in range(1, 5)}
    job = sbatch(cluster, "sleep 1", "--array=1-6", "--cpus-per-task=2")
    eventually(lambda: states(cluster, job) == ["COMPLETED"] * 6)
    nodes = set(cluster.client("sacct", "-n", "-X", "-P", "-j", job, "-o", "NodeList").split())
    assert len(nodes) > 1


@needs_slurm
def test_a_job_over_two_nodes_reaches_its_first_node_by_address(cluster: Loopback, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "srun sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME $SLURM_LAUNCH_NODE_IPADDR'"
    cluster.client("sbatch", "--wait", "--nodes=2", "--ntasks=2", f"--output={out}", f"--wrap={script}")
    ranks, nodes, addresses = zip(*(line.split() for line in out.read_text().splitlines()), strict=True)
    assert sorted(ranks) == ["0", "1"]
    assert len(set(nodes)) == 2
    assert set(addresses) == {"127.0.0.1"}


@needs_slurm
def test_preemption_sends_the_jobs_own_signal_then_requeues_it(cluster: Loopback, tmp_path: Path) -> None:
    out = tmp_path / "out"
    task = 'trap "echo USR2" USR2; echo start $SLURM_RESTART_COUNT; for i in $(seq 300); do sleep 0.1; done'
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\nsrun bash -c '{task}'\n")
    everything = ("--nodes=4", "--exclusive")
    options = ("--partition=low", "--signal=USR2@10", "--open-mode=append", f"--output={out}")
    low = cluster.client("sbatch", "--parsable", "--ntasks=1", *everything, *options, str(script)).strip()
    eventually(lambda: out.exists() and "start" in out.read_text())
    main = sbatch(cluster, "true", *everything)
    eventually(lambda: states(cluster, main) == ["COMPLETED"])
    eventually(lambda: "start 1" in out.read_text())
    cluster.client("scancel", low)
    assert "USR2" in out.read_text()


@needs_slurm
def test_a_job_beyond_its_memory_is_killed(cluster: Loopback, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hog = "import time; held = b'1' * (300 << 20); time.sleep(30)"
    job = cluster.client(
        "sbatch", "--parsable", "--mem=50", f"--output={out}", f'--wrap={sys.executable} -c "{hog}"'
    ).strip()
    eventually(lambda: states(cluster, job) == ["FAILED"])
    assert "exceeded memory limit" in out.read_text()


@needs_slurm
def test_a_killed_node_goes_down_with_its_jobs_and_comes_back(cluster: Loopback) -> None:
    job = sbatch(cluster, "sleep 60", "--nodelist=node2", "--no-requeue")
    marks = (f"SLURM_JOB_ID={job}\0", str(cluster.layout.slurm_conf))
    eventually(lambda: len(mentioning(*marks)) == 2)  # the script and its sleep
    cluster.kill_node("node2")
    assert mentioning(*marks) == []
    cluster.wait_for_nodes("down", "node2", seconds=NODE_PATIENCE)
    eventually(lambda: states(cluster, job) == ["NODE_FAIL"])
    assert cluster.node_states()["node1"] == "idle"
    cluster.start_node("node2")
    cluster.wait_for_nodes("idle", "node2", seconds=NODE_PATIENCE)
    assert states(cluster, sbatch_and_wait(cluster, "true", "--nodelist=node2")) == ["COMPLETED"]


def sbatch_and_wait(cluster: Loopback, script: str, *options: str) -> str:
    job = sbatch(cluster, script, *options)
    eventually(lambda: not cluster.client("squeue", "-h", "-j", job).strip())
    eventually(lambda: states(cluster, job)[-1:] not in ([], ["RUNNING"], ["PENDING"]))
    return job


@needs_slurm
def test_a_job_outlives_its_slurmd(cluster: Loopback, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    job = sbatch(cluster, f"until [ -e {flag} ]; do sleep 0.1; done", "--nodelist=node3")
    eventually(lambda: cluster.client("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING")
    cluster.kill_node("node3", jobs=False)
    cluster.start_node("node3")
    flag.touch()
    eventually(lambda: states(cluster, job) == ["COMPLETED"])


@needs_slurm
def test_jobs_run_without_accounting_and_are_accounted_for_later(cluster: Loopback) -> None:
    cluster.stop_accounting()
    assert not cluster.accounting_answers()
    with pytest.raises(UserError, match="sacct"):
        states(cluster, "1")
    job = sbatch(cluster, "true")
    eventually(lambda: "COMPLETED" in cluster.client("scontrol", "show", "job", job))
    cluster.start_accounting()
    eventually(lambda: states(cluster, job) == ["COMPLETED"])


@needs_slurm
def test_status_reports_what_is_wrong(cluster: Loopback) -> None:
    folder = str(cluster.layout.root)
    fine = command("status", "--json", "--dir", folder)
    report = json.loads(fine.stdout)
    assert (fine.returncode, report["healthy"], report["accounting"]) == (0, True, True)
    assert report["partitions"] == ["main", "high", "low", "lowcancel"]
    cluster.kill_node("node4", report=True)
    amiss = command("status", KD_LOOPBACK=folder)
    assert amiss.returncode == 1
    assert "node4 (not running)" in amiss.stdout and "node4: down" in amiss.stdout
    cluster.start_node("node4")
    cluster.wait_for_nodes("idle", "node4", seconds=NODE_PATIENCE)


@needs_slurm
def test_a_second_cluster_runs_at_the_same_time_and_leaves_nothing(cluster: Loopback, folder: Path) -> None:
    """One of the second cluster's jobs has emptied its environment and left its session.

    MariaDB deletes the temporary tables that it finds in its folder for them when it starts, and /tmp may hold those
    of another server.
    """
    tables = Path(f"/tmp/#sql-temptable-{os.getpid()}-1-1.MAI")
    tables.touch()
    started = command("up", "--nodes", "1", "--set", "MaxArraySize=50", "--dir", str(folder))
    assert started.returncode == 0, started.stderr
    assert started.stdout == (folder / "env.sh").read_text()
    assert tables.exists()
    tables.unlink()

    shell = f". {folder}/env.sh && scontrol show config && sbatch --parsable -o /dev/null --wrap "
    shell += f"\"env -i setsid sh -c 'sleep 986; : {folder}' & sleep 987\""
    result = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert "MaxArraySize            = 50" in result.stdout
    second = Loopback.attach(folder)
    assert second.node_states() == {"node1": "idle"} or second.node_states() == {"node1": "mixed"}
    assert set(second.settings.node_ports).isdisjoint(cluster.settings.node_ports)
    eventually(lambda: any("sleep 986" in line for line in mentioning(str(folder))))
    eventually(lambda: any("987" in line for line in mentioning(str(folder))))
    assert len(cluster.node_states()) == 4

    second_start = command("up", "--dir", str(folder))
    assert second_start.returncode == 2 and "stop it first" in second_start.stderr

    # A shell that has sourced env.sh is not the cluster's to kill.
    bystander = subprocess.Popen(["sleep", "60"], env={**os.environ, **second.env})
    ended = command("down", "--dir", str(folder))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert ended.returncode == 0, ended.stderr
    assert not folder.exists()
    assert mentioning(str(folder)) == []
    assert len(cluster.node_states()) == 4  # the other one did not notice
    assert command("down", "--dir", str(folder)).returncode == 0  # nothing to do


@needs_slurm
@pytest.mark.parametrize("daemon", ["db", "slurmdbd", "node2"])
def test_down_after_an_up_that_was_killed_half_way(folder: Path, daemon: str) -> None:
    start = subprocess.Popen(
        [sys.executable, "-m", "slurm.loopback", "up", "--dir", str(folder)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    sign = folder / "db" / "ibdata1" if daemon == "db" else folder / "run" / f"{daemon}.pid"
    eventually(sign.exists)
    start.send_signal(signal.SIGKILL)
    start.wait()
    assert mentioning(str(folder))
    assert command("down", "--dir", str(folder)).returncode == 0
    assert not folder.exists()
    assert mentioning(str(folder)) == []


@needs_slurm
def test_a_start_that_fails_reports_the_cause_and_leaves_nothing(folder: Path) -> None:
    result = command("up", "--dir", str(folder), "--set", "SlurmdTimeout=soon")
    assert result.returncode == 2
    assert "SlurmdTimeout" in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not folder.exists()
    assert mentioning(str(folder)) == []


@needs_slurm
def test_a_database_that_cannot_be_made_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm.loopback.cluster.MARIADB", ["--innodb-no-such-option=1"])
    with pytest.raises(UserError, match=r"could not be made.*unknown variable 'innodb-no-such-option=1'"):
        Loopback.up(folder)
    assert not folder.exists()


def test_the_printed_lines_are_safe_in_a_shell() -> None:
    folder = Path("/tmp/a$HOME;echo b&(c)")
    cluster = Loopback(folder, config.Settings(1, 1, 100))
    shell = ["sh", "-c", 'eval "$1"; printf %s "$KD_LOOPBACK"', "sh", cluster.exports()]
    assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout == str(folder)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["upp"], "No such command 'upp'. Did you mean 'up'?"),
        (["up", "--nodes", "0"], "--nodes 0: expected 1 to 64"),
        (["up", "--set", "MaxArraySize"], "--set MaxArraySize: expected KEY=VALUE, e.g. --set MaxArraySize=50"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], error: str) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {error}\n")


@needs_slurm
def test_a_folder_of_something_else_is_not_changed(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    for what in ("up", "down"):
        result = command(what, "--dir", str(folder))
        assert result.returncode == 2 and str(folder) in result.stderr
    assert (folder / "thesis.tex").exists()
    (folder / "thesis.tex").unlink()


@needs_slurm
def test_a_folder_too_long_for_sockets_is_refused(folder: Path) -> None:
    result = command("up", "--dir", f"{folder}{'x' * 90}")
    assert result.returncode == 2 and "shorter --dir" in result.stderr


def test_missing_packages_are_named(folder: Path) -> None:
    result = command("up", "--dir", str(folder), PATH="")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "apt-get install slurm-wlm slurmdbd munge mariadb-server" in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "0"], "--nodes 0: expected 1 to 64"),
        (["--set", "MaxArraySize"], "expected KEY=VALUE"),
        (["--set", "NodeName=a"], "not a key of slurm.conf that can be changed here"),
    ],
)
def test_wrong_options_are_refused(folder: Path, arguments: list[str], message: str) -> None:
    result = command("up", "--dir", str(folder), *arguments)
    assert result.returncode == 2 and message in result.stderr
    assert not folder.exists()
