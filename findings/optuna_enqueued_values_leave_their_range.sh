#!/usr/bin/env bash
# Optuna 5.0.0: a trial enqueued with a number outside of the range that it is then suggested from keeps that number. `suggest_float("x",
# 0.1, 10)` returns 20.0 and `suggest_int("k", 1, 5)` returns 7, each with no more than a warning; for `suggest_categorical` the same is a
# ValueError. The trial is told, counts, and can be `best_params`. But `other.add_trials(study.trials)`, the way to join
# or to replay searches, then raises ValueError ("isn't contained in the distribution"), while `optuna.copy_study` takes the same trials.
# So own settings put in first (a method's defaults, outside of the range to be searched) may win a search of [0.1, 10] with 20, and a
# search that ended well cannot be joined to another.
# Seen on Python 3.11: 20.0 and 7 suggested, ValueError for the category; best 20.0; add_trials refused, copy_study not.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0
seen="$(cd "$folder" && "$folder/venv/bin/python" -W ignore - 2>&1 <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def refused(action):
    try:
        action()
    except ValueError:
        return "refused"
    return "taken"


url = "sqlite:///study.db"
study = optuna.create_study(study_name="search", storage=url, direction="maximize")
study.enqueue_trial({"x": 20.0, "k": 7, "c": "z"})
trial = study.ask()
numbers = trial.suggest_float("x", 0.1, 10), trial.suggest_int("k", 1, 5)
category = refused(lambda: trial.suggest_categorical("c", ["a", "b"]))
study.tell(trial, 1.0)
for value in (0.1, 0.2):
    other = study.ask()
    other.suggest_float("x", 0.1, 10), other.suggest_int("k", 1, 5)
    study.tell(other, value)
best = study.best_params["x"]
added = refused(lambda: optuna.create_study(direction="maximize").add_trials(study.trials))
copied = refused(lambda: optuna.copy_study(from_study_name="search", from_storage=url, to_storage="sqlite:///copy.db"))
print(*numbers, category, best, added, copied)
PYTHON
)"
echo "x, k suggested; category; best x; add_trials; copy_study: $seen"
test "$seen" = "20.0 7 refused 20.0 refused taken"
