#!/usr/bin/env bash
# torch 2.14.1: a process that first imports `torch.distributed.nn.functional` while a process group exists keeps that group for ever:
# after `destroy_process_group` gloo's threads still run, and go on until the interpreter takes itself apart. Its functions have the group that
# exists at their import as the default value of an argument. `import torch._dynamo`, which torch.compile does at its first call, imports it.
# Imported before the group, or never, the threads end with the group. So the order of two imports decides what runs when a job ends.
# Seen on Python 3.11, one process, gloo: no thread left with the import before or without it, three left with either import in between.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$folder/threads.py" <<'PYTHON'
import gc
import importlib
import pathlib
import sys

import torch
import torch.distributed as dist

before, within = sys.argv[1:]
if before:
    importlib.import_module(before)
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
if within:
    importlib.import_module(within)
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
gc.collect()
print(sum("gloo" in name.read_text() for name in pathlib.Path("/proc/self/task").glob("*/comm")))
PYTHON
seen="$(for imports in "torch.distributed.nn.functional -" "- -" "- torch.distributed.nn.functional" "- torch._dynamo"; do
  read -r before within <<< "$imports"
  "$folder/venv/bin/python" "$folder/threads.py" "${before#-}" "${within#-}" 2> "$folder/stderr"
done | xargs)"
echo "gloo's threads after the group: imported before, never, within, within by torch._dynamo: $seen"
test "$seen" = "0 0 3 3"
