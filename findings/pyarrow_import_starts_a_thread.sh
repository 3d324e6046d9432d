#!/usr/bin/env bash
# pyarrow 26.0.1 on Linux: `import pyarrow` starts a thread, jemalloc's for returning memory. A process that imports it
# before it forks (multiprocessing's fork or forkserver with preloaded modules) is multi-threaded then. Another memory
# pool (ARROW_DEFAULT_MEMORY_POOL=system) does not prevent it; JE_ARROW_MALLOC_CONF=background_thread:false does.
# Seen on Python 3.11: threads before, after with another pool, and after with the second variable: 1 2 1.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
threads() {
  "$folder/venv/bin/python" -c "import os; $1; print(len(os.listdir('/proc/self/task')))"
}
seen="$(threads pass) $(ARROW_DEFAULT_MEMORY_POOL=system threads 'import pyarrow') $(JE_ARROW_MALLOC_CONF=background_thread:false threads 'import pyarrow')"
echo "threads before the import, after it, and after it with the variable: $seen"
test "$seen" = "1 2 1"
