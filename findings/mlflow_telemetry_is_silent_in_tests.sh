#!/usr/bin/env bash
# mlflow-skinny 3.17.2: a client of a local SQLite database asks a telemetry server of the vendor for its settings on its own, in a
# background thread. It leaves that out when PYTEST_CURRENT_TEST or CI is in the environment.
# So a test that refuses sockets, which is how one checks that tracking stays on the machine, passes, and the same code asks outside when a
# user runs it. MLFLOW_DISABLE_TELEMETRY=true stops it; a test of that has to remove both variables first.
# Seen on Python 3.11: names asked for by a plain process, none under CI=true, none with telemetry switched off.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 SQLAlchemy==2.1.9 alembic==1.20.1
cat > "$folder/run.py" <<'PYTHON'
import socket
import time

asked = set()


def refuse(host, *arguments, **options):
    asked.add(host)
    raise OSError("no network here")


socket.getaddrinfo = refuse
from mlflow import MlflowClient

client = MlflowClient("sqlite:///runs.db")
client.create_experiment("e")
deadline = time.monotonic() + 20
while not asked and time.monotonic() < deadline:
    time.sleep(0.1)
print("asked" if asked else "quiet")
PYTHON
unset CI PYTEST_CURRENT_TEST MLFLOW_DISABLE_TELEMETRY DO_NOT_TRACK
run() { mkdir "$folder/$1" && cd "$folder/$1" && shift && env "$@" "$folder/venv/bin/python" "$folder/run.py" 2> "$folder/log" | tail -1; }
seen="$(run plain A=1) $(run ci CI=true) $(run off MLFLOW_DISABLE_TELEMETRY=true)"
echo "plain; under CI=true; telemetry off: $seen"
test "$seen" = "asked quiet quiet"
