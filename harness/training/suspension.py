"""The time for which SLURM has suspended this process. It is not time in which the process has trained.

Clocks run on while a process is stopped. SIGCONT tells that it continues, and a thread that looks at the clock all the
time knows to half a ``TICK`` since when it did not.
"""

import signal
import threading
import time

TICK = 0.5  # seconds between two looks at the clock; a shorter stop is not noticed
_seconds = 0.0


def suspended_seconds() -> float:
    """Return the seconds for which this process was stopped since ``watch_suspensions``; 0 without that."""
    return _seconds


def watch_suspensions() -> None:
    """Measure from now on for how long this process is stopped. Call it before there are other threads.

    The signal is blocked so that it waits for the thread that asks for it; a process continues all the same.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})
    threading.Thread(target=_watch, name="suspensions", daemon=True).start()


def _watch() -> None:
    global _seconds
    last = time.monotonic()
    while True:
        continued = signal.sigtimedwait({signal.SIGCONT}, TICK)
        now = time.monotonic()
        if continued and now - last > TICK:
            _seconds += now - last - TICK / 2
        last = now
