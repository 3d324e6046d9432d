#!/usr/bin/env bash
# numba 0.68.1: a function that is compiled with `njit` and does not state `fastmath` is compiled as the function whose compilation first calls for it. If that
# one has fastmath=True, so has the called function from then on, for all its callers and for calls from Python; with `cache=True` it is so on the disk, and
# every later process gets it. So what a sum of products is depends on who called first, perhaps last week. A function that states fastmath=False is
# compiled without. Whoever lets a library compile calls of their own function (a loader that compiles pipelines with fastmath, say) must state it.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
cat > "$folder/called.py" <<'PY'
import numba


def dot(a, b):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


unstated = numba.njit(cache=True)(dot)
stated = numba.njit(cache=True, fastmath=False)(dot)
PY
cat > "$folder/call.py" <<'PY'
import sys

import numba
import numpy as np

import called

function = getattr(called, sys.argv[1])
by_fast = numba.njit(fastmath=True)(lambda a, b: function(a, b))
a, b = np.random.default_rng(0).normal(size=(2, 10_001))
exact = called.dot(a, b)  # by Python
callers = {"fast": by_fast, "python": function}
print(*(f"{caller}:{'as written' if callers[caller](a, b) == exact else 'reordered'}" for caller in sys.argv[2:]))
PY
cd "$folder"
run() { "$folder/venv/bin/python" call.py "$@"; }
fresh() { rm -rf "$folder/__pycache__"; run "$@"; }
seen="$(fresh unstated python fast); $(fresh unstated fast python); $(run unstated python); $(fresh stated fast python)"
echo "python first; fast first; python in the next process; stated, fast first: $seen"
test "$seen" = "python:as written fast:as written; fast:reordered python:reordered; python:reordered; fast:as written python:as written"
