"""States and errors derived from SLURM's answers, or from missing ones; functions stand in for SLURM."""

import signal
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.planning.plan import plan_sweep
from harness.planning.submit import named_anywhere
from harness.store import files
from harness.store.store import Store
from slurm import commands, early_ends, entry, excluded_nodes, job_checks
from slurm.array_jobs import ArrayJob, ArrayJobs
from slurm.backend import backend_of
from slurm.cluster import Cluster
from slurm.commands import JobState
from slurm.job_groups import SlurmJob
from slurm.queue import Queue, QueuedJob, QueuedRun
from slurm.refusals import Refusal
from tests.support.cli import process, run_command

RUNS = ("aaaa", "bbbb", "cccc")
NAME = "kd-sweep-1"


@dataclass
class Slurm:
    """A stand-in for SLURM's commands."""

    queued: list[JobState] = field(default_factory=list)
    accounted: list[JobState] = field(default_factory=list)
    answers: bool = True
    users: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def squeue(self, users: set[str]) -> list[JobState]:
        self.calls.append("squeue")
        self.users = set(users)
        if not self.answers:
            raise UserError("squeue: Unable to contact slurm controller")
        return self.queued

    def sacct(self, job_ids: list[str]) -> list[JobState]:
        self.calls.append("sacct")
        return [job for job in self.accounted if job.job_id in job_ids]


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    slurm = Slurm()
    monkeypatch.setattr(commands, "squeue", slurm.squeue)
    monkeypatch.setattr(commands, "sacct", slurm.sacct)
    return slurm


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """Return a cluster with three runs in an array that somebody else has submitted as job 7."""
    queue_file = tmp_path / "queues" / "sweep-00000000.json"
    packs = tuple(QueuedJob((QueuedRun(run, "student", False, 1),), None, "s", None, 1442, 64) for run in RUNS)
    Queue(str(tmp_path), packs, 3, 1, None, {}, "loopback").write(queue_file)
    cluster = Cluster(queue_file)
    note = ArrayJob(NAME, "", [[run] for run in RUNS], [], "7", "alice")
    files.replace_json(cluster.store.submission(NAME), asdict(note))
    return cluster


def test_pending_and_running(cluster: Cluster, slurm: Slurm) -> None:
    slurm.queued = [
        JobState("7_0", NAME, "PENDING", "Priority"),
        JobState("7_1", NAME, "RUNNING", "None"),
        JobState("7_2", "another cluster's job of this number", "RUNNING", "None"),
    ]
    assert [cluster.scheduled(run) for run in RUNS] == [
        ("pending", "Priority, job 7_0"),
        ("running", "job 7_1"),
        ("", ""),
    ]
    assert cluster.runs_without_job() == {"cccc"}
    assert slurm.users == {"alice", commands.user()}


def test_status_without_a_file_shows_jobs_of_a_cluster(
    cluster: Cluster, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.queued = [JobState("7_0", NAME, "PENDING", "Priority"), JobState("7_1", NAME, "PENDING", "Dependency")]
    slurm.accounted = [JobState("7_2", NAME, "NODE_FAIL", "None"), JobState("8", "kd-other-1", "TIMEOUT", "None")]
    job = QueuedJob((QueuedRun("dddd", "student", False, 1),), None, "s", None, 1442, 64)
    replace(cluster.queue, jobs=(job,)).write(cluster.queue_file.with_name("other-00000000.json"))
    ArrayJobs(cluster.store).write(ArrayJob("kd-other-1", "", [["dddd"]], [], "8"))
    cluster.store.run("aaaa").mkdir(parents=True)
    cluster.store.add_attempt("aaaa", log="log", pid=1, memory_mb=1536, too_little_mb=1024)
    cluster.store.run("bbbb").mkdir()
    cluster.store.add_attempt("bbbb", log="log", pid=1, minutes=480, too_few_minutes=240, avoided_nodes=["node1"])
    for wrong in ({"avoided_nodes": "node1"}, {"avoided_nodes": ["node1\n"]}, {"minutes": 1.5}, {"memory_mb": 10**400}):
        cluster.store.add_attempt("bbbb", log="log", pid=1, **wrong)
    damaged = capsys.readouterr().err
    assert damaged.count("avoided_nodes: expected a list of nodes' names, found ") == 2, damaged
    assert "attempts.jsonl:4: damaged: minutes: expected an integer, found 1.5; left out" in damaged
    assert "attempts.jsonl:5: damaged: memory_mb: expected an integer, found 1000" in damaged
    shown = run_command("status", "--results", cluster.store.root)
    head, *runs = shown.out.splitlines()
    other = runs[-1]
    assert head.startswith("sweep: 2 pending, 1 node failed; started ") and "science.json" in shown.err
    assert runs == [
        "  aaaa  pending  s / student  Priority, job 7_0, requeued 1 time, "
        "retried with 1.5 GB after running out of memory with 1",
        "  bbbb  pending  s / student  Dependency, job 7_1, requeued 1 time, "
        "retried with 480 minutes after 240 were too few; retried on another node than node1",
        other,
    ]
    assert other.startswith("other: 1 timed out; started ") and slurm.calls == ["squeue", "sacct"], "for all sweeps"


@pytest.mark.parametrize(
    ("word", "state", "remark"),
    [
        ("TIMEOUT", "timed out", "before it could checkpoint"),
        ("PREEMPTED", "preempted", "for another job"),
        ("NODE_FAIL", "node failed", "its node failed"),
        ("OUT_OF_MEMORY", "out of memory", "mem_gb"),
        ("CANCELLED", "cancelled", "job 7_0"),
        ("FAILED", "lost", "ended as FAILED without a result"),
    ],
)
def test_how_a_job_without_a_result_ended(cluster: Cluster, slurm: Slurm, word: str, state: str, remark: str) -> None:
    slurm.accounted = [JobState("7_0", NAME, word, "None")]
    found_state, found_remark = cluster.scheduled("aaaa")
    assert found_state == state and remark in found_remark and found_remark.endswith("run the sweep again")
    assert cluster.scheduled("bbbb") == ("", "")


def test_a_job_that_ends_before_any_run_began_fails_once(cluster: Cluster) -> None:
    """A job that had begun a run is not such a one: the run may be resumed."""
    store, folder = cluster.store, cluster.store.jobs / NAME
    folder.mkdir(parents=True)
    ArrayJobs(store).write(ArrayJob(NAME, str(folder), [["aaaa", "bbbb"], ["cccc"], ["dddd"]], [], "7"))
    for task, text in enumerate(("no module named x\nsrun: error: node1: task 0: Exited", "Killed", "")):
        (folder / f"7_{task}_0_log.out").write_text(text)
        (folder / f"7_{task}_exit_code").write_text("1\n")
    store.run("cccc").mkdir(parents=True)
    store.add_attempt("cccc", log=str(folder / "7_1_0_log.out"), pid=1)
    assert early_ends.write_failures(store) == {"aaaa", "bbbb", "dddd"} == store.failed_ids()
    causes = [failure.cause for run in ("bbbb", "dddd") if (failure := store.failure(run))]
    assert causes == [
        f"its job 7_{task} ended before any run began, with exit code 1{reason}"
        for task, reason in ((0, ": no module named x"), (2, ", and its log is empty"))
    ]
    store.archive_failure("aaaa")  # --retry-failed
    assert not early_ends.write_failures(store)


def test_a_node_on_which_a_job_does_not_begin_is_avoided_for_a_day(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder, nodes = cluster.store, cluster.store.jobs / NAME, {"n1", "n2", "n3"}
    monkeypatch.setattr(commands, "usable_nodes", lambda: nodes)
    folder.mkdir(parents=True)
    name = f"kd-{cluster.queue_file.stem}-1"
    ArrayJobs(store).write(ArrayJob(name, str(folder), [[run] for run in RUNS], [], "7"))

    def ends_on(task: int, node: str, most: int = 2) -> set[str]:
        (folder / f"7_{task}_exit_code").write_text(f"3 {node} {most}\n")
        return early_ends.write_failures(store)

    def avoided() -> str:
        jobs = [SlurmJob(cluster.queue.jobs[:1], cluster.profile.resources)]
        options = cluster._submission(name, jobs, folder, False, ()).script()
        return next((line.partition("=")[2] for line in options.splitlines() if "--exclude=" in line), "")

    monkeypatch.setattr("shutil.which", lambda command: command)
    cluster.profile = cluster.profile.model_copy(update={"sbatch": {"exclude": "n9"}})
    assert ends_on(0, "n1", most=0) == {"aaaa"} and avoided() == "n9", "the profile has no such retry"
    store.archive_failure("aaaa")
    assert not ends_on(0, "n1") and not ends_on(1, "n1") and avoided() == "n9,n1"
    nodes.remove("n3")
    assert ends_on(1, "n2") == {"bbbb"}, "there is no other node"
    assert avoided() == "n9", "the first was not to blame"
    nodes.update(("n3", "n4"))
    assert not ends_on(2, "n2") and not ends_on(2, "n3") and avoided() == "n9,n2,n3"
    assert ends_on(2, "n4") == {"cccc"} and avoided() == "n9", "it may avoid two"
    excluded_nodes.exclude_node(cluster.queue_file, "n1", "broken")
    assert avoided() == "n9,n1"
    later = time.time() + excluded_nodes.SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert avoided() == "n9", "they are forgotten"


def test_jobs_are_assumed_to_go_on_while_slurm_is_silent(
    cluster: Cluster, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.answers = False
    for _ in range(3):
        assert cluster.runs_without_job() == set()
        assert cluster.scheduled("aaaa") == ("", "")
    assert capsys.readouterr().err.count("Unable to contact") == 1
    slurm.answers = True
    cluster.profile = cluster.profile.model_copy(update={"poll_seconds": 0.0})
    assert cluster.runs_without_job() == set(RUNS)


@pytest.mark.parametrize("name", ["gone.yaml", "gone.yml"])
def test_jobs_are_seen_and_ended_without_their_profile(
    cluster: Cluster, slurm: Slurm, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It lies where the submitter keeps it, whom others cannot ask, and may be gone."""
    profile = named_anywhere(name)
    assert profile == str(Path(name).resolve())
    replace(cluster.queue, cluster=profile).write(cluster.queue_file)
    slurm.queued = [JobState("7_0", NAME, "PENDING", "Priority")]
    ended = list[str]()
    monkeypatch.setattr(commands, "cancel", ended.extend)
    queue = backend_of(cluster.queue_file)
    assert queue.scheduled("aaaa") == ("pending", "Priority, job 7_0")
    assert queue.runs_without_job() == {"bbbb", "cccc"}
    assert queue.cancel() and ended == ["7_0"]
    with pytest.raises(UserError, match=rf"sweep-00000000.json: .*{name}"):
        queue.start()


def test_accounts_that_are_gone_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[tuple[str, ...]] = []

    def output(*command: str) -> str:
        queries.append(command)
        return ""

    monkeypatch.setattr(commands, "_output", output)
    commands.squeue({commands.user(), "no-such-account-here"})
    assert queries[0][1] == f"--user={commands.user()}"


@pytest.mark.parametrize(
    ("size", "tasks"),
    [
        ("MaxArraySize = 50\n", 50),
        ("MaxArraySize = 0\n", 1),
        ("", 1001),
        ("MaxArraySize = 50\nSchedulerParameters = defer,max_array_tasks=20\n", 20),
    ],
)
def test_a_cluster_without_arrays_gets_jobs_of_one_task(monkeypatch: pytest.MonkeyPatch, size: str, tasks: int) -> None:
    monkeypatch.setattr(commands, "_output", lambda *command: size if command[0] == "scontrol" else "")
    assert commands.most_array_tasks() == tasks


POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("limit", "is_job_limit", "is_shared"),
    [
        ("AssocMaxSubmitJobLimit", True, False),
        ("AssocGrpSubmitJobsLimit", True, True),
        ("MaxSubmitJobsPerAccount", True, True),
        ("QOSMaxCpuPerJobLimit", False, False),
        ("", True, False),
    ],
)
def test_which_refusals_are_for_the_number_of_jobs(limit: str, is_job_limit: bool, is_shared: bool) -> None:
    refusal = Refusal(f"sbatch: error: {limit}\nsbatch: error: Batch job submission failed: {POLICY}\n")
    assert (refusal.is_job_limit, refusal.is_shared) == (is_job_limit, is_shared)
    assert str(refusal) == f"{limit}: {POLICY}".removeprefix(": ")


def test_refusals_of_another_kind() -> None:
    invalid = Refusal("sbatch: error: a site's advice\nsbatch: error: Batch job submission failed: Invalid qos")
    assert (invalid.is_job_limit, str(invalid)) == (False, "Invalid qos")
    assert str(Refusal("")) == "no reason given"


def test_a_job_without_a_state_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_output", lambda *command: "7|kd-x||None\n8|kd-y|CANCELLED by 0|None\n")
    assert [job.state for job in commands.sacct(["7", "8"])] == ["UNKNOWN", "CANCELLED"]


def test_a_note_that_another_submitter_removes_is_skipped(tmp_path: Path) -> None:
    submissions = Store(tmp_path).submissions
    submissions.mkdir(parents=True)
    (submissions / "gone.json").symlink_to(tmp_path / "removed")  # listed, and missing when it is read
    array_jobs = ArrayJobs(Store(tmp_path))
    array_jobs.write(ArrayJob("kd-a", "/jobs/kd-a", [["x"]], []))
    assert [job.name for job in array_jobs.read()] == ["kd-a"]


def test_a_start_that_slurm_does_not_answer_reports_it(cluster: Cluster, slurm: Slurm) -> None:
    slurm.answers = False
    with pytest.raises(UserError, match="Unable to contact"):
        cluster.start()


def queue_with(tmp_path: Path, resources: str, methods: str = "[student]") -> tuple[Path, tuple[QueuedJob, ...]]:
    """Write a queue file of students on digits; return its path and packs."""
    profile, sweep, queue_file = (tmp_path / name for name in ("p.yaml", "s.yaml", "queues/s.json"))
    profile.write_text(f"resources: {{{resources}}}\n")
    sweep.write_text(f"{{dataset: digits, recipe: digits_quick, methods: {methods}, seeds: 1, "
                     "pairs: [{teacher: digits_net_w8, student: digits_net_w4}]}")  # fmt: skip
    planned = plan_sweep(sweep, tmp_path)
    for run_id, run in planned.plan.runs.items():
        planned.store.write_science(run_id, run.science)
    packs = tuple(
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in p.run_ids}, p.needs)
        for p in planned.plan.packs
    )
    Queue(str(tmp_path), packs, 1, 1, None, {}, str(profile)).write(queue_file)
    return queue_file, packs


@pytest.mark.parametrize(("nodes", "tasks", "refused"), [(34, 1, False), (5, 7, True)])
def test_every_process_needs_an_image_of_the_last_batch(
    tmp_path: Path, slurm: Slurm, nodes: int, tasks: int, refused: bool
) -> None:
    """The last of 1,442 images' batches of 64 has 34, which limits the number of processes."""
    queue_file, packs = queue_with(tmp_path, f"nodes: {nodes}, tasks_per_node: {tasks}")
    if refused:
        with pytest.raises(UserError, match=r"35 processes .* last batch of 1442 images in batches of 64 has 34;"):
            Cluster(queue_file).start()
    else:
        job_checks.check_batches(packs[0], nodes * tasks, "--cluster c")


@pytest.mark.parametrize(("nodes", "refused"), [(8, False), (9, True)])
def test_every_process_needs_an_image_of_every_micro_batch(
    tmp_path: Path, slurm: Slurm, nodes: int, refused: bool
) -> None:
    """Nine processes have three or four of 34 images each, which limits the number of micro-batches."""
    _, packs = queue_with(tmp_path, f"nodes: {nodes}", "{student: {}, kd: {recipe: {accumulate: 4}}}")
    check = partial(job_checks.check_batches, processes=nodes, cluster="--cluster c")
    check(packs[0])  # the teacher
    if refused:
        with pytest.raises(UserError, match=r"take batches in 4 parts \(`accumulate`\), but the last batch .* has 34"):
            check(packs[1])
    else:
        check(packs[1])


def test_a_missing_engine_is_reported_before_anything_is_submitted(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_file, _ = queue_with(tmp_path, "nodes: 2, engine: deepspeed")
    monkeypatch.setattr("slurm.job_checks.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"engine deepspeed is not installed here: pip install 'kd-harness\[deepspeed\]'"
    ):
        Cluster(queue_file).start()


def test_lamb_is_refused_before_its_parameters_are_cut_up(tmp_path: Path, slurm: Slurm) -> None:
    methods = "{student: {recipe: {optimizer: lamb, lr: 0.01}}}"
    queue_file, _ = queue_with(tmp_path, "nodes: 2, engine: deepspeed, zero_stage: 1", methods)
    with pytest.raises(UserError, match=r"optimizer lamb: .* zero_stage 1 .*; use zero_stage 0, engine native, or"):
        Cluster(queue_file).start()


def test_learners_whose_teachers_record_vanished_are_not_submitted(tmp_path: Path, slurm: Slurm) -> None:
    """While a job trains the teacher, whichever sweep submitted it, they are."""
    queue_file = tmp_path / "queues" / "sweep-00000000.json"
    job = QueuedJob((QueuedRun("bbbb", "kd", True, 1),), "aaaa", "s", "t", 1442, 64)
    Queue(str(tmp_path), (job,), 3, 1, None, {}, "loopback").write(queue_file)
    note = ArrayJob(NAME, "", [["aaaa"]], [], "7", "alice")
    cluster = Cluster(queue_file)
    files.replace_json(cluster.store.submission(NAME), asdict(note))
    slurm.queued = [JobState("7", NAME, "PENDING", "Priority")]
    cluster.live()
    assert not cluster._fail_without_teacher({"bbbb"})
    slurm.queued = []
    assert Cluster(queue_file).start() == 0
    failure = cluster.store.failure("bbbb")
    assert failure and failure.cause.startswith("its teacher's run aaaa has no record any more: run the sweep again")


def test_a_run_with_too_little_memory_is_given_up_before_torch_is_imported(tmp_path: Path) -> None:
    """Every earlier start may have been killed in that import."""
    (tmp_path / "7_0_log.out").write_text("slurmstepd: error: StepId=7.0 exceeded memory limit")
    script = """if True:
        import sys
        from slurm.entry import run
        from harness.training.job_order import JobOrder
        run(JobOrder(sys.argv[1], ("aaaa",), None, {}, 1).to_json(), max_attempts=20)
        assert "torch" not in sys.modules
    """
    job = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}
    result = process("-c", script, tmp_path, env={**job, "SLURM_RESTART_COUNT": "3"})
    assert result.code == 0, result.err
    failure = Store(tmp_path).failure("aaaa")
    assert failure and failure.cause == "no result after 3 attempts, out of memory: raise `mem_gb` in the profile"


def test_restarts_count_for_the_runs_that_had_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's later packs are not given up with its first, and starts that nobody could note count for all."""
    store, log = Store(tmp_path), str(tmp_path / "7_0_log.out")
    Path(log).write_text("slurmstepd: error: StepId=7.0 exceeded memory limit")
    for pid in range(3):
        for run in ("aaaa", "bbbb"):
            store.run(run).mkdir(parents=True, exist_ok=True)
            store.add_attempt(run, log=log, pid=pid)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    entry.fail_after_max_attempts(store, RUNS, 20, log)
    assert store.failed_ids() == {"aaaa", "bbbb"}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "6")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    (tmp_path / "7_short_of_memory").write_text("512\n1024\n")
    entry.fail_after_max_attempts(store, RUNS, 20, log)
    assert store.failed_ids() == {"aaaa", "bbbb"}, "this start has more memory than those"
    with (tmp_path / "7_short_of_memory").open("a") as note:
        note.write("2048\n")
    entry.fail_after_max_attempts(store, RUNS, 20, log)
    failure = store.failure("cccc")
    assert store.failed_ids() == set(RUNS) and failure and "out of memory: raise `max_mem_gb`" in failure.cause


@pytest.mark.parametrize("runs", [True, False])
def test_a_job_that_is_done_ends_with_0_whatever_its_libraries_do_at_the_end(tmp_path: Path, runs: bool) -> None:
    """A job that could not begin ends as they do."""
    script = """if True:
        import ctypes, sys
        from slurm.entry import run
        from harness.training.job_order import JobOrder
        libc = ctypes.CDLL(None)
        libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)
        print("printed", flush=True)
        order = JobOrder(sys.argv[1], ("aaaa",), None, {}, 1).to_json()
        run(order if sys.argv[2] == "True" else {}, max_attempts=2)
    """
    job = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}
    result = process("-c", script, tmp_path, runs, env={**job, "SLURM_RESTART_COUNT": "2"})
    assert result.out.startswith("printed\n")
    assert (result.code, len(Store(tmp_path).failed_ids())) == ((0, 1) if runs else (-signal.SIGABRT, 0))
