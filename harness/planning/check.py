"""The check before training: each run takes a first step on random images, in one process for all, on the CPU.

It finds what would end runs in the queue or after hours: a wrong tap, a missing loss term, an image size that a model
does not take, a last batch of one image, weights of another model. What has passed is noted in the store.
"""

import hashlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from harness.console.terminal import say
from harness.errors import Mistakes, UserError
from harness.phrases import plural
from harness.planning.cost import devices
from harness.planning.plan import Planned
from harness.spec import identity
from harness.spec.own_models import source_of
from harness.spec.science import Given, Several, Trained, as_json
from harness.spec.sweep_plan import Run
from harness.store import files, provenance
from harness.training.check_order import CheckOrder, CheckResult, RunToCheck, State, read_results
from harness.training.job_order import WeightsFile
from slurm.module_command import module_command
from slurm.snapshot import CHECKOUT, PACKAGES

SECONDS = 60.0  # for the check of one run
PATIENCE = 600.0  # seconds for the whole check
QUIET = 4.0  # seconds before it says that it is at work
THREADS = 1  # a login node is shared, and threads on a few images wait for each other


def check_first_steps(planned: Planned, to_do: Collection[str], cluster: str) -> None:
    """Let each kind of run take a first step, unless it has passed before. The seed does not matter.

    If the check itself cannot be done, that is said, and the runs count as good.

    Raises:
        UserError: some runs would fail, or data or weights are missing; nothing was written.
    """
    device = devices.devices(cluster, threads=1)
    runs: dict[str, tuple[Run, RunToCheck]] = {}
    for run in _of_one_seed(planned, to_do):
        content, target = run.science.without_seed(), device(run.science)
        if run.science.teacher_runs:  # their own training does not matter
            content["teacher"] = _untrained_teachers(run.science.teacher)
        to_check = RunToCheck(run.science.to_json(), target.processes, target.gpu)
        runs.setdefault(_key("step", [content, target.processes]), (run, to_check))
    new = {key: pair for key, pair in runs.items() if not planned.store.check(key).exists()}
    if not new:
        return
    planned.data_folder()  # what is missing is said at once
    weights = planned.weights_files(to_do)
    passed = _check(planned, list(new.values()), weights, steps=True)
    for (key, (run, _)), is_good in zip(new.items(), passed, strict=True):
        for name in (key, *_weights_keys(run, weights)) if is_good else ():
            with suppress(OSError):  # in a folder that is closed to this user; then it is checked again
                files.replace_json(planned.store.check(name), {"run": run.label, "at": time.time()}, durable=False)


def check_given_weights(planned: Planned, to_do: Collection[str]) -> None:
    """Load the given weights that are at hand, unless they have been loaded before. Nothing is written.

    Raises:
        UserError: some do not load.
    """
    weights = planned.weights_files(to_do, fetch=False)
    runs: dict[str, tuple[Run, RunToCheck]] = {}
    for run in _of_one_seed(planned, to_do):
        pair = replace(run, label=run.label.partition(" / ")[0] + " / ")  # whatever the method
        new = [key for key in _weights_keys(run, weights) if not planned.store.check(key).exists()]
        runs |= {key: (pair, RunToCheck(run.science.to_json(), 1)) for key in new if key not in runs}
    if runs:
        _check(planned, list(runs.values()), weights, steps=False)


def _untrained_teachers(teacher: Trained | Given | Several | None) -> object:
    """Return what a first step depends on of teachers some of which are yet to be trained."""
    if isinstance(teacher, Several):
        return [_untrained_teachers(one) for one in teacher.teachers]
    if isinstance(teacher, Trained):
        return [teacher.model, source] if (source := source_of(teacher.model)) else teacher.model
    return as_json(teacher)


def _of_one_seed(planned: Planned, run_ids: Collection[str]) -> Iterable[Run]:
    """Return a run of each pair and method."""
    runs = (run for run_id, run in planned.plan.runs.items() if run_id in run_ids)
    return {id(run.science.method): run for run in runs}.values()  # an object that seeds share


def _weights_keys(run: Run, weights: Mapping[str, WeightsFile]) -> list[str]:
    """Return the keys of a run's given weights that are at hand."""
    science = run.science
    building: list[object] = [science.dataset.name, science.dataset.classes, science.recipe.image_size]
    building += [science.dataset.image_shape] if science.dataset.image_shape else []
    building += [getattr(science.recipe, key) for key in science.dataset.info.task.recipe]
    keys = []
    for teacher in science.given_teachers:
        if teacher.weights_id in weights:
            keys.append(_key("teacher", [identity.canonical(as_json(teacher)), building]))
    if (start := science.initial_weights) and start.weights_id in weights:
        keys.append(_key("backbone", [science.student, start.weights_id, building]))
    return keys


def _key(kind: str, content: object) -> str:
    return identity.digest({"of": [kind, content, provenance.versions(), _code()]})


@cache
def _code() -> str:
    """Return a hash of the harness's code."""
    paths = sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def _check(
    planned: Planned, runs: list[tuple[Run, RunToCheck]], weights: dict[str, WeightsFile], steps: bool
) -> list[bool]:
    """Return which runs have passed; of the others nothing is known.

    Raises:
        UserError: some would fail.
    """
    with tempfile.TemporaryDirectory(prefix="harness-check-") as scratch:
        results = Path(scratch, "results")
        order = CheckOrder([r for _, r in runs], weights, steps, SECONDS, THREADS, str(results))
        order.write(Path(scratch, "order.json"))
        what = "checking the runs' first steps before training" if steps else "loading the given weights"
        known, why = _run(Path(scratch), results, f"{what}: {{}} of {len(runs)} done")
    problems = {runs[i][0].label: result.cause for i, result in known.items() if result.state == State.FAILED}
    if problems:
        head = (
            f"{planned.document.source}: {plural(len(problems), 'problem')} found before training, so nothing was "
            "started (--no-check skips this check):"
        )
        raise Mistakes(map(UserError, (head, *_problem_lines(problems))))
    for i, result in known.items():
        if result.state in (State.TOO_SLOW, State.NOT_HERE):
            slow = f"takes longer than {SECONDS:.0f} s for a step"
            say(f"not checked: {runs[i][0].label.rpartition(' / ')[0]}: {result.cause or slow}")
    for note in dict.fromkeys(note for result in known.values() for note in result.notes):
        say(note)
    if why:
        begun = (runs[i][0].label for i, result in known.items() if result.state == State.BEGUN)
        where = next((f" (at {label.rpartition(' / ')[0]})" for label in begun), "")
        say(f"the check before training is not complete: {why}{where}; going on without it")
    return [i in known and known[i].state == State.PASSED for i in range(len(runs))]


def _problem_lines(problems: Mapping[str, str]) -> list[str]:
    """Return a line for each pair and cause, with the methods; ``problems``: causes by run label."""
    methods: dict[tuple[str, str], list[str]] = {}
    for label, cause in problems.items():
        pair, _, method = label.rpartition(" / ")[0].partition(" / ")
        methods.setdefault((pair, cause), []).append(method)
    return [": ".join(filter(None, (pair, ", ".join(names), cause))) for (pair, cause), names in methods.items()]


def _run(scratch: Path, results: Path, progress: str) -> tuple[dict[int, CheckResult], str]:
    """Run the check's process; return its results, and why some are missing. ``progress`` is said while it works."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(THREADS)}
    command = module_command("harness.training.check", scratch / "order.json")
    log = scratch / "log"
    try:
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
    except OSError as e:
        return {}, f"its process did not start: {e.strerror}"
    try:
        code = _wait(process, results, progress)
    finally:
        with suppress(ProcessLookupError):  # with what methods have started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    known = read_results(results)
    if code is None:
        return known, f"it takes longer than {PATIENCE:.0f} s"
    if code < 0:
        ended = f"its process was ended by {signal.Signals(-code).name}"
        return known, f"{ended} (out of memory?)" if -code == signal.SIGKILL else ended
    for i in [i for i, result in known.items() if result.state == State.BEGUN]:  # it was not killed, but ended
        known[i] = CheckResult(i, State.FAILED, f"it ends its process, with code {code}")
    return known, files.tail(log, 1) if code and not known else ""


def _wait(process: "subprocess.Popen[bytes]", results: Path, progress: str) -> int | None:
    """Return the process's exit code; None when it takes too long."""
    end, pause, said = time.monotonic() + PATIENCE, QUIET, ""
    while (left := end - time.monotonic()) > 0:
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(min(pause, left))
        if code is None or said:  # also at the end, when a number has been said before
            text = progress.format(sum(result.state != State.BEGUN for result in read_results(results).values()))
            if text != said:
                say(text)
            said = text
        if code is not None:
            return code
        pause = 5 * QUIET
    return None
