"""The time for which SLURM has suspended this process. It is not time in which the process has trained.

Clocks run on while a process is stopped. SIGCONT tells that it continues, and a thread that looks at the clock all the
time knows to half a ``TICK`` since when it did not.
"""

import select
import signal
import socket
import threading
import time

TICK = 0.5  # seconds between two looks at the clock; a shorter stop is not noticed
_seconds = 0.0


def suspended_seconds() -> float:
    """Return the seconds for which this process was stopped since ``watch_suspensions``; 0 without that."""
    return _seconds


def watch_suspensions() -> None:
    """Measure from now on for how long this process is stopped. Only the main thread can call this."""
    signals, wake = socket.socketpair()
    for end in (signals, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCONT, lambda *_: None)  # Python tells of signals with a handler only
    threading.Thread(target=_watch, args=(signals, wake), name="suspensions", daemon=True).start()


def _watch(signals: socket.socket, wake: socket.socket) -> None:
    global _seconds
    last = time.monotonic()
    while True:
        received = _receive(signals, TICK)
        now = time.monotonic()
        if now - last > 2 * TICK:
            received += _receive(signals, TICK / 10)  # which may come just after the look at the clock
            if signal.SIGCONT in received:
                _seconds += now - last - TICK / 2
        last = now


def _receive(signals: socket.socket, seconds: float) -> bytes:
    """Return the numbers of signals that have come, or come within some seconds."""
    return signals.recv(4096) if select.select([signals], [], [], seconds)[0] else b""
