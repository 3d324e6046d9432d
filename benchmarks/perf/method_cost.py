"""Bench of each method's training step against the step of a student without a teacher, for wrn_40_2 -> wrn_16_2.

Each method trains by itself at its default settings, with the teacher's forward pass if it reads one. `NAME first` is a
step of a method's first stage. The ratio is rekd's step over kd's.
"""

from collections.abc import Callable

import torch

from benchmarks.perf.cifar import BATCH, CLOCK, STUDENT, TEACHER, THREADS, Trainer
from benchmarks.perf.measurement import emit, in_turn, say
from harness.data.load.view import View
from harness.spec import methods
from harness.training import host_memory

STEPS, ROUNDS = 5, 4
FIRST = "first_epochs"  # the hyper-parameter for the length of a first stage
LOW_LR = {"first_lr": 1e-3}  # an untrained teacher's maps are large: ft's first stage would diverge and end early


def main() -> None:
    host_memory.retain_freed_memory()
    torch.set_num_threads(THREADS)
    trainer, of_views = Trainer(STEPS), Trainer(STEPS, views={"strong": View(4, flip=True, stream="strong")})

    def side(name: str, **params: float) -> Callable[[], float]:
        reads_views = trainer.member(name).views
        return lambda: (of_views if reads_views else trainer).train((name,), **params)[0]

    sides, parameters = {}, {}
    for name in [k for k in methods.builtin_names() if "classification" in methods.describe_method(k).defined_for]:
        hyper = methods.describe_method(name).hyper
        staged = FIRST in hyper
        sides[name] = side(name, **({FIRST: 0} if staged else {}))
        if staged:
            sides[f"{name} first"] = side(name, **{FIRST: 1}, **{k: v for k, v in LOW_LR.items() if k in hyper})
        member = trainer.member(name)
        parameters[name] = sum(p.numel() for p in member.parameters) - sum(
            p.numel() for p in member.student.parameters()
        )
    least = {name: min(seconds) for name, seconds in in_turn(sides, ROUNDS, budget_s=240).items()}
    for name in [name for name in least if name.endswith(" first")]:
        least[name] -= least[name.removesuffix(" first")]
    times = {name: round(seconds / least["student"], 2) for name, seconds in sorted(least.items())}
    for name, factor in times.items():
        say(f"  {name:14} {factor:6.2f} x the student's step   {parameters.get(name, 0):>10,} parameters")
    detail = {"pair": f"{TEACHER} -> {STUDENT}", "batch": BATCH, "threads": THREADS, "clock": CLOCK,
              "student_s_per_step": round(least["student"] / STEPS, 4), "times_student": times,
              "parameters": parameters}  # fmt: skip
    emit("method_cost", least["rekd"] / least["kd"], 1.5, detail, better="lower")


if __name__ == "__main__":
    main()
