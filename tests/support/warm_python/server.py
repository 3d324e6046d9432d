"""The process that forks: it has imported the libraries, but nothing of this project, and has no threads.

python server.py LISTENER PROGRAM PADDING
"""

import array
import ctypes
import gc
import importlib
import marshal
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import types
from contextlib import suppress
from typing import Any

LIBRARIES = """
    submitit.core._submit submitit.slurm.slurm
    numpy pandas pyarrow.parquet pyarrow.dataset pyarrow.compute pydantic.dataclasses pydantic.type_adapter
    yaml typer rich.progress rich.live
    torch torch.distributed torch.utils.data torch.func torch._dynamo safetensors.torch
    torchvision torchvision.models.detection torchvision.transforms.v2 timm
    deepspeed deepspeed.runtime.zero.muon.muon_optimizer
    ffcv ffcv.loader.loader ffcv.transforms ffcv.fields.rgb_image
    scipy.special scipy.io matplotlib.figure matplotlib.backends.backend_agg matplotlib.backends.backend_svg
    matplotlib.backends.backend_pdf fontTools.subset
    pycocotools.cocoeval PIL.Image
    multiprocessing.spawn multiprocessing.forkserver multiprocessing.resource_tracker concurrent.futures.process
    http.server sqlite3 xml.dom.minidom zoneinfo tarfile zipfile
""".split()


def import_libraries() -> None:
    del sys.path[0]  # this file's folder
    gc.disable()
    for name in LIBRARIES:
        with suppress(ImportError):  # tests of what is missing skip
            importlib.import_module(name)
    import pyarrow

    pyarrow.scalar(0)  # imports pandas' side of pyarrow
    gc.freeze()
    gc.enable()
    collapse_pages()


def collapse_pages() -> None:
    """Have the memory in pages of 2 MB, which a fork copies in a third of the time; before Linux 6.1 it stays as it
    is."""
    page, collapse = 1 << 21, 25  # MADV_COLLAPSE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with open("/proc/self/maps") as file:
        mappings = [line.split() for line in file]
    for addresses, rights, _, _, _, *name in mappings:
        if rights == "rw-p" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            start, end = -(-start // page) * page, end // page * page
            if start < end:
                madvise(start, end - start, collapse)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request and its open files.

    Raises:
        ConnectionError: the launcher was killed before it had sent all.
    """
    size = array.array("i").itemsize * 250
    head, extra, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(size))
    fds = array.array("i")
    for _level, _kind, data in extra:
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if len(head) < 8:
        raise ConnectionError
    text = b""
    while len(text) < int.from_bytes(head, "big"):
        if not (part := connection.recv(1 << 20)):
            for fd in fds:
                os.close(fd)
            raise ConnectionError
        text += part
    return marshal.loads(text), list(fds)


def become(request: dict[str, Any], received: list[int], program: str) -> None:
    """Make this process what the launcher would be."""
    os.setsid()
    first = max(*request["fds"], *received, 2) + 1
    copies = [os.dup2(fd, first + i, inheritable=True) for i, fd in enumerate(received)]
    os.closerange(0, first)
    for fd, copy in zip(request["fds"], copies, strict=True):
        os.dup2(copy, fd, inheritable=True)
    os.closerange(first, first + len(copies))
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["cores"])
    for limit, values in request["limits"].items():
        with suppress(ValueError, OSError):
            resource.setrlimit(int(limit), values)
    for s in request["ignored"]:
        signal.signal(s, signal.SIG_IGN)
    if signal.SIGINT not in request["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    os.environ.clear()
    os.environ.update(request["environment"])
    name_process([program, *request["words"]])
    sys.executable = program
    open_streams(request["unbuffered"])
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(request["cores"]))))
    sys.modules["numpy"].random.seed()


def open_streams(unbuffered: bool) -> None:
    """Open standard input and output anew: the old ones know what the server's files could do."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        mode, buffering = ("r", -1) if fd == 0 else ("w", 1 if unbuffered or fd == 2 else -1)
        with suppress(OSError):  # a closed file
            stream = open(fd, mode, buffering, encoding=old.encoding, errors=old.errors, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def name_process(words: list[str]) -> None:
    """Replace the words that /proc shows."""
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    text = b"\0".join(word.encode() for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def run(words: list[str], safe_path: bool) -> None:
    """Run the module of `-m` or the program of `-c`; with a safe path, without the current folder on it."""
    path = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    kind, *rest = words
    if kind == "-m":
        sys.path[:0] = [*([] if safe_path else [os.getcwd()]), *path]
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[:0] = [*([] if safe_path else [""]), *path]
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)


def exit_code(error: BaseException | None) -> int:
    """Return the code with which Python ends after an exception, and print what it prints."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    own_frames, traceback = 2, error.__traceback__
    for _ in range(own_frames):
        traceback = traceback and traceback.tb_next
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 1


def live(request: dict[str, Any], received: list[int], program: str) -> None:
    """Live and end as the requested process, without taking modules apart at the end."""
    import atexit

    error: BaseException | None = None
    try:
        become(request, received, program)
        run(request["words"], request["safe_path"])
    except BaseException as e:
        error = e
    code = 1
    try:
        code = exit_code(error)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def serve(listener: socket.socket, program: str) -> None:
    """Answer launchers until pytest ends."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    poll.register(0, select.POLLIN)
    launchers: dict[int, int] = {}  # a launcher's connection -> its process
    processes: dict[int, tuple[int, int]] = {}  # a process's pidfd -> the process, its launcher's connection
    while True:
        fd = poll.poll()[0][0]  # one event, as it may end others
        if fd == 0:
            return  # pytest has ended
        if fd == listener.fileno():
            connection, _ = listener.accept()
            try:
                request, received = receive(connection)
            except ConnectionError:
                connection.close()
                continue
            if not (pid := os.fork()):
                listener.detach()
                connection.detach()
                live(request, received, program)
            for copy in received:
                os.close(copy)
            pidfd = os.pidfd_open(pid)
            launchers[fileno := connection.detach()] = pid
            processes[pidfd] = pid, fileno
            poll.register(fileno, select.POLLIN)
            poll.register(pidfd, select.POLLIN)
        elif fd in processes:
            pid, launcher = processes.pop(fd)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            poll.unregister(fd)
            os.close(fd)
            if launchers.get(launcher) == pid:  # else it was killed, and another may have its number
                del launchers[launcher]
                poll.unregister(launcher)
                with suppress(OSError):
                    os.write(launcher, code.to_bytes(4, "big", signed=True))
                os.close(launcher)
        else:
            try:
                signals = os.read(fd, 100)
            except ConnectionResetError:
                signals = b""
            for s in signals:
                # Without a terminal SIGTSTP is ignored, and the SIGSTOP that SLURM sends next stops the launcher only.
                os.kill(launchers[fd], signal.SIGSTOP if s == signal.SIGTSTP else s)
            if not signals:  # the launcher was killed, and with it go its process and what that has started
                pid = launchers.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                for kill in (os.kill, os.killpg):
                    with suppress(ProcessLookupError):
                        kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    import_libraries()
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    shutil.rmtree(os.path.dirname(sys.argv[2]), ignore_errors=True)  # else what pytest, killed, could not remove stays
