# Asks the server for a process in place of this one: with these words, this environment and these files. What cannot
# be had in a forked process (a terminal, a script, an option of the interpreter) becomes a Python of its own.
# Only modules that are compiled into Python, or nearly so: it starts in a third of the time.
import _signal as signal
import _socket
import marshal
import os
import resource
import select
import sys

FORWARDED = [
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
]
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
READ_AT_START = ("LD_PRELOAD", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONWARNINGS")


def cold():
    os.execv(PYTHON, [PYTHON, *sys.argv[1:]])  # noqa: F821


words = sys.argv[1:]
options = []
while words[:1] in (["-u"], ["-P"]):
    options.append(words.pop(0))
unbuffered = "-u" in options or bool(os.environ.get("PYTHONUNBUFFERED"))
safe_path = "-P" in options or bool(os.environ.get("PYTHONSAFEPATH"))
if words[:1] not in (["-m"], ["-c"]) or os.isatty(0):
    cold()
if any(name in os.environ for name in READ_AT_START):
    cold()
server = _socket.socket(_socket.AF_UNIX)
fds = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd != server.fileno()]
fds = [fd for fd in fds if os.path.lexists(f"/proc/self/fd/{fd}")]  # without that of the listing
request = {
    "words": words,
    "unbuffered": unbuffered,
    "safe_path": safe_path,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0),
    "cores": sorted(os.sched_getaffinity(0)),
    "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
    "ignored": [s for s in FORWARDED if signal.getsignal(s) == signal.SIG_IGN],
    "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "fds": fds,
}
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
for s in FORWARDED:
    if s not in request["ignored"]:
        signal.signal(s, lambda *_: None)
text = marshal.dumps(request)
try:
    server.connect(SOCKET)  # noqa: F821
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    server.sendmsg([len(text).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    server.sendall(text)
except OSError:
    cold()
null = os.open(os.devnull, os.O_RDWR)
for fd in fds:
    os.dup2(null, fd) if fd < 3 else os.close(fd)
while True:
    ready = select.select([server, woken], [], [])[0]
    if server in ready:
        answer = server.recv(4)
        break
    try:
        server.sendall(os.read(woken, 100))
    except OSError:  # it has just ended, and its answer is there
        pass
code = int.from_bytes(answer, "big", signed=True) if answer else 1
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.kill(os.getpid(), -code)
os._exit(code)
