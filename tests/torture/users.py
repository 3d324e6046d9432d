"""Torture by people: two users and one who can only read give commands on one store at the same time.

Both write to it, with umask 002 and a common group. They plant numbers of processes, queue files, marks and locks.
After each round every record must still be there with its value, every process alive, and each command must have
worked, or been refused in words where it may be.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from harness.store import records
from harness.store.locks import Lock
from harness.store.store import Store
from slurm import local
from slurm.queue import cancelled_file
from tests.support import users
from tests.support.cli import CommandResult
from tests.support.leaderboard_records import science
from tests.support.user_session import accuracy
from tests.support.users import Session, User
from tests.torture import Outcome

ALICE, BOB, READER = User(4001), User(4002), User(4003, umask=0o022, in_group=False)
NAMES = {ALICE: "alice", BOB: "bob", READER: "reader"}
SWEEP = """
dataset: {name: digits, train_subset: 60}
recipe: {base: digits_quick, epochs: 1, batch_size: 32}
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
methods: [student]
seeds: 1
"""
CANCEL = ("status", "s.yaml", "--cancel")
READING = (
    ("status", "s.yaml"),
    ("status", "s.yaml", "--json"),
    ("status", "s.yaml", "--failures"),
    ("report", "s.yaml"),
    ("leaderboard", "--out"),
    ("sweep", "s.yaml", "--plan"),
)
WRITING = (("write_records",), ("write_records",), ("compact", "--grace", "0"), CANCEL)
TRAINING = ("sweep", "s.yaml", "--set")
TRAINING_SHARE = 0.01  # of a user's commands: it takes seconds


@dataclass
class People:
    """The three with their sessions, a process each that nobody may end, and what they have written."""

    folder: Path
    random: random.Random
    sessions: dict[User, Session] = field(default_factory=dict)
    victims: dict[User, "subprocess.Popen[str]"] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    def command(self, user: User) -> tuple[str, ...]:
        """Return a random command for a user to give."""
        if user is not READER and self.random.random() < TRAINING_SHARE:
            return (*TRAINING, f"seeds={self.random.randint(2, 3)}", "--results", "results")
        words = self.random.choice(READING if user is READER else READING + WRITING)
        if words == ("write_records",):
            seed = len(self.seeds)
            self.seeds.append(seed)
            return (*words, "results", str(seed))
        out = (f"/tmp/{self.folder.name}-{NAMES[user]}.html",) if words[-1] == "--out" else ()
        return (*words, *out, "--results", "results")

    def plant(self, stack: ExitStack) -> None:
        """Put another's number or mark where a user can write, or hold a lock until the end of ``stack``."""
        runs = sorted((self.store.root / "runs").glob("*"))
        for queue_file in self.store.queues("s"):
            victim = self.random.choice(list(self.victims.values()))
            match self.random.randrange(4):
                case 0:
                    local.lock_of(queue_file).write_text(f"{victim.pid} host")
                case 1:
                    cancelled_file(queue_file).touch()
                case 2:
                    lock = Lock(local.lock_of(queue_file))  # as a dispatcher on another machine has it
                    stack.callback(lock.release)
                    lock.acquire()
                case 3 if runs:
                    self.store.add_attempt(self.random.choice(runs).name, log="", pid=victim.pid, threads=1)

    def lost(self) -> str:
        """Return what is no longer there; empty where all is."""
        for user, victim in self.victims.items():
            if victim.poll() is not None:
                return f"a process of {NAMES[user]} was ended"
        expected = {science(seed=seed).run_id: accuracy(seed) for seed in self.seeds}
        table = records.read_records(self.store, list(expected), ["run_id", "last_top1"])
        there = dict(zip(*table.to_pydict().values(), strict=True))
        different = {run_id for run_id, value in expected.items() if there.get(run_id) != value}
        if different:
            return f"records of {sorted(different)} are lost or changed"
        private = [path for path in self.store.root.rglob("*") if self._is_closed(path)]
        return f"{private[0]} is closed to the group" if private else ""

    def _is_closed(self, path: Path) -> bool:
        with suppress(FileNotFoundError):
            status = path.lstat()
            own = path.parent.name == "queues" and path.suffix == ".json"  # written by its owner alone
            return status.st_gid != users.GROUP or not status.st_mode & (0o040 if own else 0o020)
        return False


def trials(folder: Path, random: random.Random) -> Iterator[Outcome]:
    """Yield an outcome for each command of the three, who give one each at the same time."""
    if reason := users.missing():
        yield Outcome(f"not tried: {reason}")
        return
    with users.shared_folder() as shared, ExitStack() as stack:
        (shared / "s.yaml").write_text(SWEEP)
        (shared / "results").mkdir(mode=0o2775)
        (shared / "results").chmod(0o2775)
        stack.callback(os.umask, os.umask(0o002))
        people = People(shared, random)
        for user in NAMES:
            people.victims[user] = user.start("sleep", "1000000", cwd=shared)
            stack.callback(people.victims[user].communicate)
            stack.callback(people.victims[user].kill)
            people.sessions[user] = stack.enter_context(Session(user, shared))
        for user in (ALICE, BOB):
            people.sessions[user].run("write_queue", "results", "s")
        yield from _rounds(people)


def _rounds(people: People) -> Iterator[Outcome]:
    while True:
        commands = {user: people.command(user) for user in people.sessions}
        for user, words in commands.items():
            people.sessions[user].ask(*words)
        with ExitStack() as stack:
            people.plant(stack)
            quick = {user for user in commands if commands[user][: len(TRAINING)] != TRAINING}
            answers = {user: people.sessions[user].answer() for user in quick}
        answers |= {user: people.sessions[user].answer() for user in commands.keys() - quick}
        lost = people.lost()
        for user, answer in answers.items():
            said = f"{NAMES[user]}: {' '.join(commands[user])}: {answer.err.strip()[-300:]}"
            what = f"{lost}; {said}" if lost else _broken(answer, said)
            yield Outcome("worked" if answer.code == 0 else "refused in words", what)
            lost = ""


def _broken(answer: CommandResult, said: str) -> str:
    """Return what is wrong with an answer: nobody had reason to refuse, but a cancel of another's queue is."""
    if "Traceback" in answer.err:
        return said
    return "" if answer.code == 0 or "cancel it there" in answer.err else said
