#!/usr/bin/env bash
# statsmodels 0.15.0: each call of multipletests runs Python's whole garbage collection, whatever the number of p values.
# In a process that has imported torch, five p values took 0.15 seconds, and a property test of 100 cases 105 seconds.
# Seen on Python 3.11: 3 calls, 3 collections.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check statsmodels==0.15.0
seen="$("$folder/venv/bin/python" - <<'PYTHON'
import gc
from statsmodels.stats.multitest import multipletests
collections = []
gc.disable()
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]) if phase == "start" else None)
for _ in range(3):
    multipletests([0.01, 0.02, 0.03, 0.04, 0.05], method="holm")
print(collections)
PYTHON
)"
echo "generations collected in 3 calls, with automatic collection off: $seen"
test "$seen" = "[2, 2, 2]"
