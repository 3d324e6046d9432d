"""Misbehaving methods as a user might write them. Most read what to do from a file in the current folder."""

import ctypes
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Batch, Distiller, FirstStage, Outputs, TapSpec
from methods.kd import soft_target_loss


class Sleeps(Distiller):
    """Sleeps in every step for the seconds in a file ``slow``, while there is one."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        try:
            time.sleep(float(Path("slow").read_text()))
        except (FileNotFoundError, ValueError):
            pass
        return {}


class Notes(Distiller):
    """Writes the first index and the images' hash of each batch to a file."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, name: str = ""):
        super().__init__(student, teacher)
        self.name = name

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        image_hash = hashlib.sha256(batch.images.numpy().tobytes()).hexdigest()
        with Path(f"seen-{self.name}").open("a") as f:
            f.write(f"{int(batch.indices[0])} {image_hash}\n")
        return {}


class NotesFirst(Notes):
    """Does so after a first stage of two epochs, in which it writes the first index of each batch."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, name: str = ""):
        super().__init__(student, teacher, name=name)
        self.first_stage = FirstStage(2, student_taps=("stage1",))

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        with Path(f"first-{self.name}").open("a") as f:
            f.write(f"{int(batch.epoch)} {int(batch.indices[0])}\n")
        return {"size": student.features["stage1"].square().mean()}


class Kills(Distiller):
    """Kills its own process at the step that a file ``kill-at`` names, counted from the process's start."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec, *, name: str = ""):
        super().__init__(student, teacher)
        self.steps = 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        order = Path("kill-at")
        if order.exists() and self.steps == int(order.read_text()):
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1
        return {}


class KillsFirst(Kills):
    """Does so with a first stage of three epochs, whose steps count too."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def first_stage(self) -> FirstStage:  # a property does as well as an attribute
        return FirstStage(3)

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        self(batch, student, teacher)
        return {"square": self.scale.square()}


class TellsEpoch(Distiller):
    """Logs its batches' epoch."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    diagnostics: ClassVar[tuple[str, ...]] = ("epoch",)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"epoch": torch.tensor(float(batch.epoch))}


class Breaks(Distiller):
    """Has a loss of 0 whose gradient is not finite."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "broken": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"broken": (0 * student.logits).sum().sqrt()}


class ReachesOthers(Distiller):
    """Has two parameters, of which the loss reaches one in the first epoch and the other from then on."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "sum": 1.0}
    diagnostics: ClassVar[tuple[str, ...]] = ("early", "late")

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.early, self.late = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"sum": self.late if batch.epoch > 1 else self.early, "early": self.early, "late": self.late}


class TellsProcess(Distiller):
    """Writes what its process is like to a file."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.facts = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS"),
            "numpy": float(np.random.random()),
            "python": random.random(),
        }

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        slow = [name for name in ("scipy", "sklearn", "torch._dynamo", "yaml") if name in sys.modules]
        Path(f"process-{os.getpid()}.json").write_text(json.dumps({**self.facts, "slow_imports": slow}))
        return {}


class AbortsAtExit(Distiller):
    """Aborts its process when the process unloads its libraries, as one with a C++ thread that still runs does."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        libc = ctypes.CDLL(None)
        libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}


class Warns(Distiller):
    """Warns while its cross-entropy is above the number in a file ``limit``."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}

    def warnings(self, means: dict[str, float]) -> list[str]:
        return ["still\nbad"] if means["ce"] > float(Path("limit").read_text()) else []


class Raises(Distiller):
    """Raises at the step that a file ``raise-at`` names."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        order = Path("raise-at")
        if order.exists() and self.steps == int(order.read_text()):
            raise ArithmeticError("this method has a bug")
        self.steps += 1
        return {}


class RaisesInOneProcess(Distiller):
    """Raises at its fourth step, in the second of several processes that train a run."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps == 4 and os.environ.get("RANK") == "1":
            raise ArithmeticError("only here")
        return {}


class GivesNaN(Distiller):
    """Returns NaN from the second step on."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "odd": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.steps = 0

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        self.steps += 1
        return {"odd": student.logits.square().mean() * (float("nan") if self.steps > 1 else 1.0)}


class GivesNaNFirst(KillsFirst):
    """Returns NaN in the first stage."""

    needs_teacher: ClassVar[bool] = False
    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)

    def first_terms(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"odd": self.scale * float("nan")}


class NoSuchTap(Distiller):
    """Asks for a map that no teacher has."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.teacher_taps = ("stage99",)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {}


class ChangesInPlace(Distiller):
    """Changes tensors in place that it shares with the other members of its pack."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        teacher.logits.zero_()
        batch.images.mul_(0.5)
        return {}


class Drops(Distiller):
    """Draws from torch's global random numbers, as nn.Dropout does."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "drop": 1.0}

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return {"drop": torch.nn.functional.mse_loss(self.dropout(student.logits), teacher.logits)}


class EachTeacher(Distiller):
    """Learns from a map of the second of two teachers, and checks what it is given of both; from one it learns none."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "map": 1.0}
    several_teachers: ClassVar[bool] = True

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.teacher_taps = [tap for tap in teacher.names if tap == "1.stage1"]

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        if not teacher.teachers:
            return {"map": student.logits.sum() * 0}
        first, second = teacher.teachers
        if not torch.equal(teacher.logits, (first.logits + second.logits) / 2) or first.features:
            raise ValueError("no mean of both teachers")
        own = second.features["stage1"]
        if not torch.equal(own, teacher.features["1.stage1"]) or len(own) != len(batch.images):
            raise ValueError("another map, or of other images")
        return {"map": own.mean() * student.logits.square().mean()}


class BreaksAtOnce(Distiller):
    """Fails at its first step, whatever teachers it has."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0}
    several_teachers: ClassVar[bool] = True

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        raise ValueError("broken")


class ReadsTwoViews(Distiller):
    """KD on an image and on its strong view, with a map of the latter."""

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "kd": 1.0, "map": 1.0}
    views: ClassVar[tuple[str, ...]] = ("strong",)

    def __init__(self, student: TapSpec, teacher: TapSpec):
        super().__init__(student, teacher)
        self.student_view_taps = self.teacher_view_taps = ("stage1",)

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        pairs = [(student, teacher), (student.views["strong"], teacher.views["strong"])]
        maps = [view.features["stage1"].square().mean(1) for view in pairs[1]]
        kd = torch.stack([soft_target_loss(s.logits, t.logits, 4.0) for s, t in pairs]).sum()
        return {"kd": kd, "map": (maps[0] - maps[1]).square().mean()}
