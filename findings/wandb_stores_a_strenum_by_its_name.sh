#!/usr/bin/env bash
# wandb 0.31.0: a member of a StrEnum, which is a str, is stored by its name and not by its text. Of `DONE = "done-text"` the summary and the
# config keep "DONE", in the script and in the file that a later sync sends. `json.dumps` of the same member writes "done-text".
# So settings and states that are StrEnums look right in a script's own JSON, and a filter on their text finds no run.
# `str.__str__(value)`, or `value.value`, has to be given.
# Seen on Python 3.11: DONE in the summary, the config and the offline file; the text in none of them.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
seen="$(cd "$folder" && WANDB_MODE=offline WANDB_SILENT=true "$folder/venv/bin/python" - <<'PYTHON'
import json
from enum import StrEnum

import wandb


class Status(StrEnum):
    DONE = "done-text"


print(json.dumps(Status.DONE))  # before wandb keeps what is printed, too
run = wandb.init(project="p", config={"of_config": Status.DONE})
run.summary["of_summary"] = Status.DONE
print(run.summary["of_summary"], run.config["of_config"])
run.finish()
PYTHON
)"
holds() { grep --quiet --text "$1" "$folder"/wandb/offline-run-*/*.wandb && echo yes || echo no; }
seen="$(echo $seen) $(holds '"DONE"') $(holds done-text)"
echo "json.dumps; summary; config; its name in the file; its text in the file: $seen"
test "$seen" = '"done-text" DONE DONE yes no'
