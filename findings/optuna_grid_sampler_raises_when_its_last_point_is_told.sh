#!/usr/bin/env bash
# Optuna 5.0.0: with `GridSampler` and the ask-and-tell interface, `study.tell` of the trial that completes the grid raises RuntimeError
# ("`Study.stop` is supposed to be invoked inside an objective function or a callback"), and so does each `tell` after it. The result
# is recorded all the same: the trial is complete and has its value. Asked on, the sampler repeats points instead of ending.
# So a loop of ask and tell over a grid of four ends with an error at the fourth result, after hours of training perhaps, although
# nothing is lost; a loop that tells again what seems to have failed gets another error, as the trial is finished.
# Seen on Python 3.11: grid of 2 x 2, results told: 3 quietly, the fourth raises; 4 trials complete; a fifth point is one of the four.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0
seen="$(cd "$folder" && "$folder/venv/bin/python" -W ignore - 2>&1 <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
grid = {"a": [1, 2], "b": [1, 2]}
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler(grid, seed=0))
told, points = [], []
for number in range(5):
    trial = study.ask()
    points.append(tuple(trial.suggest_categorical(name, values) for name, values in grid.items()))
    if number == 4:
        break
    try:
        study.tell(trial, float(number))
        told.append("quiet")
    except RuntimeError:
        told.append("raises")
complete = sum(t.state.name == "COMPLETE" for t in study.trials)
print(*told, complete, len(set(points[:4])), points[4] in points[:4])
PYTHON
)"
echo "results told; complete trials; distinct points of the first four; whether the fifth repeats one: $seen"
test "$seen" = "quiet quiet quiet raises 4 4 True"
