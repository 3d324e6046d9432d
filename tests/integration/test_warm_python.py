"""Commands that start from the warm process: as those of a Python that has just started."""

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import until
from tests.support.warm_python import VARIABLE, executable

pytestmark = pytest.mark.skipif(VARIABLE not in os.environ, reason="runs with whole folders of tests")


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([executable(), *words], capture_output=True, text=True, timeout=300, **options)


def started(program: str) -> subprocess.Popen[str]:
    """Start a program that prints its process id when it is ready."""
    # In short sleeps: Python runs no handler of a signal that comes right before a sleep until that ends.
    program = f"import os, signal, time\n{program}\nprint(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    return subprocess.Popen(
        [executable(), "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background shell's children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def pid_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@pytest.mark.parametrize(
    ("program", "code", "out", "err"),
    [
        ("import sys; print(sys.argv[1:]); sys.exit(3)", 3, "['a', 'b c']\n", ""),
        ("raise SystemExit('no')", 1, "", "no\n"),
        ("import atexit; atexit.register(print, 'bye')", 0, "bye\n", ""),
        ("import threading; threading.Timer(0.1, print, ['late']).start()", 0, "late\n", ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "", ""),
        ("import sys; print({'harness', 'methods', 'slurm', 'tests', 'pytest'} & set(sys.modules))", 0, "set()\n", ""),
    ],
)
def test_how_it_ends_and_what_it_prints(program: str, code: int, out: str, err: str) -> None:
    result = run("-c", program, "a", "b c")
    assert (result.returncode, result.stdout, result.stderr) == (code, out, err)


@pytest.mark.parametrize(("options", "variable"), [(("-P",), ""), (("-u", "-P"), ""), ((), "1")])
def test_it_keeps_the_current_folder_off_the_path(options: tuple[str, ...], variable: str) -> None:
    program = "import sys; print('' in sys.path, 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONSAFEPATH": variable}
    assert run(*options, "-c", program, env=environment).stdout == "False True\n", "and from the warm process"


def test_an_error_looks_as_always() -> None:
    result = run("-c", "1 / 0")
    lines = result.stderr.splitlines()
    assert result.returncode == 1 and len(lines) == 3
    assert lines[1] == '  File "<string>", line 1, in <module>' and lines[2].startswith("ZeroDivisionError")


def test_it_has_the_callers_surroundings(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    program = f"""
import os, resource, sys
os.write({writer}, b"x")
print(os.getcwd(), os.environ.get("ONLY"), os.umask(0), sorted(os.sched_getaffinity(0)), sys.stdin.read())
print(resource.getrlimit(resource.RLIMIT_FSIZE)[0], sys.path[:2], open("/proc/self/cmdline").read().split("\\0")[1])
"""
    cores = sorted(os.sched_getaffinity(0))[-1:]

    def surroundings() -> None:
        import resource

        os.umask(0o027)
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    environment = {**os.environ, "ONLY": "here", "PYTHONPATH": "/nowhere"}
    options = {"cwd": tmp_path, "env": environment, "pass_fds": (writer,), "preexec_fn": surroundings}
    result = run("-c", program, input="typed", **options)
    assert result.stdout.splitlines() == [f"{tmp_path} here {0o027} {cores} typed", f"{1 << 20} ['', '/nowhere'] -c"]
    assert os.read(reader, 9) == b"x"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_signals_reach_it(signum: int) -> None:
    process = started("")
    pid_of(process)
    process.send_signal(signum)
    assert process.wait(60) == -signum
    handled = started(f"signal.signal({int(signum)}, lambda *_: os._exit(7))")
    pid_of(handled)
    handled.send_signal(signum)
    assert handled.wait(60) == 7


def test_it_dies_with_what_the_caller_sees_and_the_other_way_round() -> None:
    process = started("import subprocess; child = subprocess.Popen(['sleep', '300']); print(child.pid, flush=True)")
    child, pid = pid_of(process), pid_of(process)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    until(lambda: not alive(child) and not alive(pid))
    other = started("")
    os.kill(pid_of(other), signal.SIGKILL)
    assert other.wait(60) == -signal.SIGKILL


def test_a_killed_ones_end_is_not_told_to_the_next() -> None:
    for _ in range(20):
        killed = started("")
        pid_of(killed)
        next_ones = [subprocess.Popen([executable(), "-c", "raise SystemExit(3)"]) for _ in range(2)]
        killed.kill()
        assert [process.wait(60) for process in next_ones] == [3, 3]
        killed.wait(60)


def test_a_caller_that_dies_before_it_has_asked_harms_nobody() -> None:
    address = Path(executable()).with_name("socket")
    for begun in (b"", b"\0\0", (100).to_bytes(8, "big") + b"half"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(address))
            caller.sendall(begun)
    assert run("-c", "import sys; print('torch' in sys.modules)").stdout == "True\n", "the server has ended"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
