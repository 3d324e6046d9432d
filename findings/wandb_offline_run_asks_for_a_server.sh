#!/usr/bin/env bash
# wandb 0.31.0: `wandb.init(mode="offline")` still looks up a server's address: an exporter of its own error reports asks the resolver for
# a host of the vendor. What the documentation calls the same mode, the environment's WANDB_MODE=offline, looks up nothing.
# So on a cluster's node without a network, a script with the argument waits for the resolver, and on one with a network "offline" is seen
# outside. The argument is not enough: the variable has to be set before the import.
# Seen on Python 3.11: one name asked for with the argument, as the process ends; none with the variable.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
cat > "$folder/run.py" <<'PYTHON'
import socket
import sys


def refuse(host, *arguments, **options):
    with open(sys.argv[1], "a") as file:
        print(host, file=file)
    raise OSError("no network here")


socket.getaddrinfo = refuse
import wandb

run = wandb.init(project="p", **({"mode": "offline"} if sys.argv[1] == "argument" else {}))
run.log({"a": 1})
run.finish()
PYTHON
unset WANDB_MODE WANDB_ERROR_REPORTING WANDB_API_KEY CI
cd "$folder"
touch argument variable
WANDB_SILENT=true venv/bin/python run.py argument
WANDB_SILENT=true WANDB_MODE=offline venv/bin/python run.py variable
seen="$(test -s argument && echo asked || echo quiet) $(test -s variable && echo asked || echo quiet)"
echo "asked for with the argument: $(sort -u argument | tr '\n' ' ')"
echo "with the argument, with the variable: $seen"
test "$seen" = "asked quiet"
