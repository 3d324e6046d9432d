"""The end of a job's script, run by bash with stand-ins for SLURM's commands."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.store.store import Store
from slurm import commands, left_nodes
from slurm.array_jobs import queue_file_of
from slurm.excluded_nodes import excluded_nodes, forget_nodes
from slurm.script_end import ScriptEnd

# Folders of array jobs: of one queue, of another queue of the same sweep, of a sweep with a longer name.
OWN, OF_SWEEP, OF_ANOTHER = "kd-a-11111111-11111111", "kd-a-22222222-22222222", "kd-a-b-11111111-11111111"
KILLED_FOR_MEMORY = "slurmstepd: error: StepId=7.0 exceeded memory limit (300 > 200), being killed"


@dataclass
class Script:
    """The script of job 7_3, which runs on node1 and ends with some exit code."""

    folder: Path
    calls: list[str] = field(default_factory=list)

    def file(self, name: str, text: str | None = None) -> str | None:
        """Return a file's content, after writing it if there is a text; None where the file is missing."""
        path = self.folder / name
        if text is not None:
            path.write_text(text)
        return path.read_text() if path.exists() else None

    def end(self, code: int, before: str = "", state: str = "RUNNING", restarted: int = 0, most_left: int = 2) -> None:
        """Run the script; ``before``: what happens before its end."""
        end = ScriptEnd(self.folder, 3, [0.5], most_left, most_excluded=1, excluded=["node9"])
        said = self.folder / "said"
        states = self.folder / "states"
        states.write_text(state)
        lines = [
            f'squeue() {{ head -1 "{states}"; sed -i "1{{\$!d}}" "{states}"; }}',  # one after the other, then the last
            f'scontrol() {{ echo "$*" >> "{said}"; }}',
            *end.lines(),
            before,
            f"exit {code}",
        ]
        environment = {
            "PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3",
            "PLACE": f"{self.folder}/7_3_place",
            "SLURMD_NODENAME": "node1", "SLURM_RESTART_COUNT": str(restarted), "SLURM_MEM_PER_NODE": "200",
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (code, "")
        self.calls = said.read_text().splitlines() if said.exists() else []
        said.unlink(missing_ok=True)


BEGINS = 'SECONDS=60; echo "began node1" > "$PLACE"'
LEAVES = ["requeue 7_3", "update jobid=7_3 ExcNodeList=node9,node1"]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    for name in (OWN, OF_SWEEP, OF_ANOTHER):
        (tmp_path / "it's 50%" / name).mkdir(parents=True)
    return Script(tmp_path / "it's 50%" / OWN)


@pytest.mark.parametrize("code", [1, 127, 132, 137, 139])
def test_a_job_that_ends_at_once_leaves_its_node_while_others_work_elsewhere(script: Script, code: int) -> None:
    script.file("7_4_place", "began node2\n")
    script.end(code)
    assert script.calls == LEAVES
    assert script.file("7_3_left") == f"node1 {code} 2\n" and not script.file("7_3_place")
    script.end(0)
    assert not script.calls and script.file("7_3_place") == "starting node1\n", "another one's place is as it was"
    script.end(code)  # SLURM has not obeyed
    assert script.calls == ([] if code != 137 else ["requeue 7_3"])
    assert script.file("7_3_exit_code") == (f"{code} node1 1\n" if code != 137 else None)


def test_any_job_of_its_sweep_shows_that_others_work(script: Script) -> None:
    (script.folder.with_name(OF_ANOTHER) / "8_place").write_text("began node2\n")
    script.end(3)
    assert not script.calls
    (script.folder.with_name(OF_SWEEP) / "9_place").write_text("began node2\n")
    script.end(3)
    assert script.calls == LEAVES


@pytest.mark.parametrize(
    "place", [None, "began node1\n", "began node5\n", "starting node1\n"], ids=["none", "here", "left", "starts here"]
)
def test_a_job_that_ends_at_once_and_alone_does_not(script: Script, place: str | None) -> None:
    script.file("7_4_place", place)
    script.file("7_3_left", "node5 1 2\n")
    script.end(3)
    assert not script.calls and script.file("7_3_exit_code") == "3 node1 1\n"


@pytest.mark.parametrize("works", [True, False])
def test_it_waits_for_jobs_that_start_elsewhere(script: Script, works: bool) -> None:
    script.file("7_4_place", "starting node2\n")
    place = f"'{str(script.folder).replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'/7_4_place"
    then = f"echo began node2 > {place}" if works else f"rm {place}"
    script.end(3, before=f"( sleep 0.3; {then} ) &")
    assert script.calls == (LEAVES if works else [])
    assert script.file("7_3_exit_code") == (None if works else "3 node1 1\n")


@pytest.mark.parametrize(
    ("code", "before", "restarted", "calls", "note"),
    [
        (1, "SECONDS=60", 0, [], True),
        (139, BEGINS, 2, ["requeue 7_3"], False),
        (139, BEGINS, 3, [], True),
        (139, "SECONDS=60", 0, [], True),
        (143, "", 0, ["requeue 7_3"], False),
        (200, "", 9, ["requeue 7_3"], False),
        (137, "SAY", 0, ["requeue 7_3", "update jobid=7_3 MinMemoryNode=512"], False),
    ],
    ids=[
        "an error",
        "crashed",
        "crashed too often",
        "crashed before it began",
        "asked to end",
        "in a container",
        "for its memory",
    ],
)
def test_other_ends_stay_where_they_are(
    script: Script, code: int, before: str, restarted: int, calls: list[str], note: bool
) -> None:
    script.file("7_4_place", "began node2\n")
    log = script.folder / "7_3_0_log.out"
    script.end(code, f'echo "{KILLED_FOR_MEMORY}" > "{log}"' if before == "SAY" else before, restarted=restarted)
    assert script.calls == calls and not script.file("7_3_left")
    assert script.file("7_3_exit_code") == (f"{code} node1 1\n" if note else None)


def test_a_job_that_is_cancelled_does_nothing_more(script: Script) -> None:
    script.file("7_4_place", "began node2\n")
    for code in (1, 139):
        script.end(code, state="COMPLETING")
        assert not script.calls and not script.file("7_3_exit_code") and not script.file("7_3_left")


def test_a_job_that_is_suspended_waits(script: Script) -> None:
    script.end(139, before=BEGINS, state="SUSPENDED\nSUSPENDED\nRUNNING\n")
    assert script.calls == ["requeue 7_3"]


def test_a_profile_may_keep_jobs_on_their_nodes(script: Script) -> None:
    script.file("7_4_place", "began node2\n")
    script.end(3, most_left=0)
    assert not script.calls and script.file("7_3_exit_code") == "3 node1 1\n"


def test_a_queue_avoids_a_node_when_the_job_works_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single job may have only itself to blame, and a node on which others begin is none that ends them."""
    store, name = Store(tmp_path), "kd-small-1234abcd-5678cdef"
    queue_file = queue_file_of(store, name)
    folder = store.jobs / name
    folder.mkdir(parents=True)
    queue_file.parent.mkdir()
    monkeypatch.setenv("SLURMD_NODENAME", "node2")
    for task in range(3):
        left_nodes.note_begin(str(folder / f"7_{task}_0_log.out"))
    assert (folder / "7_0_place").read_text() == "began node2\n"

    nodes = {"node1", "node2", "node3", "node4"}
    monkeypatch.setattr(commands, "usable_nodes", lambda: nodes)
    monkeypatch.setattr(left_nodes, "which", lambda command: "here" if command == "sinfo" else None)

    def after(task: int, *left: str) -> list[str]:
        log = str(folder / f"7_{task}_0_log.out")
        (folder / f"7_{task}_left").write_text("".join(f"{line}\n" for line in left))
        with left_nodes.excluding(store, log):
            pass
        return [excluded.node for excluded in excluded_nodes(queue_file)]

    assert after(0, "node3 139 2", "node4 1 2", "", "node 5 1") == []
    assert after(1, "node4 1 2") == ["node4"]
    assert after(2, "node3 139 0") == ["node4"], "its profile lets it leave none"
    assert after(2, "node3 139 1") == ["node4"], "and here one"
    (folder / "7_9_place").write_text("began node3\n")
    assert after(2, "node3 139 2") == ["node4"], "others begin there"
    (folder / "7_9_place").unlink()
    nodes.difference_update({"node1", "node2"})
    assert after(2, "node3 139 2") == ["node4"], "there is no other"
    nodes.add("node1")
    assert after(2, "node3 139 2") == ["node4", "node3"]
    assert excluded_nodes(queue_file)[0].cause == "job 7_1 ended there at once, with exit code 1, and works elsewhere"
    forget_nodes(queue_file, ["node3", "node4"])
    assert len(excluded_nodes(queue_file)) == 2, "they are known to be bad"


def test_jobs_that_wait_avoid_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    queued = "6_[2-30%2]|kd-x|main|node[7-9]\n7|kd-y|main|node9\n8_3|kd-x|main|\n9|kd-x|low|node3\n"
    calls: list[tuple[str, ...]] = []

    def output(*call: str) -> str:
        calls.append(call)
        lists = {"node[7-9],node1,node2": "node7 node8 node9 node1 node2", "node3,node1,node2": "node3 node1 node2"}
        if call[0] == "sinfo":
            return "node1 node2 node3" if "--partition=low" in call else "node1 node2 node3 node9"
        return (
            queued if call[0] == "squeue" else lists.get(call[3], call[3].replace(",", " ")) if "show" in call else ""
        )

    monkeypatch.setattr(commands, "_output", output)
    commands.exclude({"kd-x"}, ["node1", "node2"])
    assert [call[2:] for call in calls if "update" in call] == [
        ("jobid=6_[2-30]", "ExcNodeList=node[7-9],node1,node2"),
        ("jobid=8_3", "ExcNodeList=node1,node2"),
    ], "job 9 would have no node"
