#!/usr/bin/env bash
# pyarrow 26.0.1 with pandas 3.1.1 installed: `import pyarrow` does not import pandas, but the first Arrow value that is
# made from a Python object does, though no pandas object is near: pa.scalar(1), pa.array([1]), Table.from_pylist.
# A short job that writes one row of Parquet pays for it with a good part of a CPU second.
# Seen on Python 3.11: False after the import, True after pa.scalar(1).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 pandas==3.1.1
seen="$("$folder/venv/bin/python" - <<'PYTHON'
import sys
import pyarrow
import pyarrow.parquet
after_import = "pandas" in sys.modules
pyarrow.scalar(1)
print(after_import, "pandas" in sys.modules)
PYTHON
)"
echo "pandas imported after importing pyarrow, after pa.scalar(1): $seen"
test "$seen" = "False True"
