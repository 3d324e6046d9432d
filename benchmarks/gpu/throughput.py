"""Stage `throughput`: images per second of KD alone and in packs, beside the plain PyTorch loop on the same card.

Our side is whole epochs of a part of the training set; the evaluation is timed separately. The images are random,
which takes as long as real ones.
"""

import gc
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.gpu.card import synchronise
from benchmarks.gpu.plain_loop import PlainLoops, PlainOrder
from benchmarks.gpu.stage_order import StageOrder
from benchmarks.perf.cifar import INFO, Silent, fresh, images, science, targets
from harness.data.load.tensors import Normalise, TensorEvalSet, TensorLoader
from harness.hardware import cores
from harness.models.facts import measure_model
from harness.models.taps import describe_taps
from harness.training.cuda.graph import Work, capture_cuda_graph
from harness.training.cuda.streams import raise_stream_limit
from harness.training.member import Member
from harness.training.pack import Pack
from harness.training.precision import set_float32
from harness.training.tasks.classification import Classification
from harness.training.teacher import Teacher, freeze

NAME = "throughput"
# Kinds of CUDA kernels by parts of their names; the first kind that fits counts.
KINDS = (
    ("convolution or matrix product", ("conv", "gemm", "xmma", "cutlass", "cudnn", "wgrad", "dgrad", "fprop", "nvjet")),
    ("batch norm", ("batch_norm", "batchnorm", "bn_")),
    ("optimiser", ("multi_tensor", "fusedsgd", "fused_sgd")),
    ("copy or cast", ("copy", "memcpy", "memset", "cast", "fill")),
    ("reduction", ("reduce", "softmax")),
    ("elementwise", ("elementwise", "triton", "vectorized")),
)


@dataclass(frozen=True)
class Pair:
    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.teacher} -> {self.student}"


@dataclass(frozen=True)
class Scale:
    """The size of the measurements."""

    pairs: tuple[Pair, ...] = (Pair("resnet32x4", "resnet8x4"), Pair("resnet56", "resnet20"))
    packs: tuple[int, ...] = (1, 8, 4, 2, 16)  # members, in order of value
    loops: tuple[int, ...] = (1, 4, 8)  # processes of the plain loop at once
    methods: tuple[str, ...] = ("student", "kd", "fitnets", "crd", "rekd")  # the published row's, trained in one pack
    batch: int = 64
    steps: int = 400  # of an epoch of a single member; packs take fewer
    least_steps: int = 100
    epochs: int = 3  # the first is not counted
    plain_seconds: float = 3.0
    profiled_steps: int = 30
    evaluated: int = INFO.test_size  # images


SMOKE = Scale(
    (Pair("resnet8", "resnet8"),), (1, 2), (1,), ("student", "kd"), batch=2, steps=3, least_steps=3, epochs=2,
    plain_seconds=0.1, profiled_steps=3, evaluated=2,
)  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """The pace of a pack, and what it took."""

    step: float  # seconds
    memory: int  # bytes that it reserved on the device
    graphs: int  # that were captured: one for each member and for the teacher, unless a step cannot be captured
    parts: dict[str, float]  # milliseconds per step by the harness's own stopwatch
    evaluation: float  # seconds, of one student on as many images as the test set has


class EpochTimes(Silent):
    """An observer that notes when each epoch ends; by then the device has finished its work."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}

    def on_epoch(self, run_id: str, member: Member, finished: bool) -> None:
        self.ends[member.history.epoch] = time.perf_counter()


class Trainer:
    """Packs of the harness on random images, in this process."""

    def __init__(self, scale: Scale, device: torch.device):
        self.scale, self.device = scale, device
        self.pixels, self.targets = images().to(device), targets().to(device)

    def train(
        self, pair: Pair, methods: Sequence[str], precision: str, graphs: bool = True, compiled: bool = False
    ) -> Pace:
        """Train a pack of these methods; the pace is that of the quickest epoch after the first."""
        scale, device = self.scale, self.device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        held = self._reserved()
        set_float32(precision)
        normalise, task = Normalise(INFO, device), Classification(INFO.classes, INFO.image_shape)
        count = scale.batch * max(scale.least_steps, scale.steps // len(methods))
        loader = TensorLoader(
            self.pixels[:count], self.targets[:count], normalise, batch_size=scale.batch, crop_padding=4, flip=True,
            seed=0,
        )  # fmt: skip
        model = fresh(pair.teacher)
        spec = describe_taps(model, INFO.image_shape)
        freeze(model, device)
        teacher = Teacher(model, pair.teacher, Path(), "", 0.0, spec)
        teacher.prepare(precision, scale.batch if compiled else None)
        members = {}
        for i, method in enumerate(methods):
            run = science(method, pair.teacher, pair.student, precision=precision, epochs=scale.epochs)
            members[f"{method} {i}"] = Member(run, teacher, self.targets, task, device)
        captures = Counter[str]()

        def capture(work: Work, generator: torch.Generator | None) -> Work:
            captures["graphs"] += 1
            return capture_cuda_graph(work, generator) if device.type == "cuda" else work

        trained, times = list(members.values()), EpochTimes()
        few = TensorEvalSet("test", self.pixels[:2], self.targets[:2], normalise)
        Pack(members, loader, few, teacher, times, capture=capture if graphs else None).train()
        ends = [times.ends[i + 1] for i in range(scale.epochs)]
        spent = Counter[str]()
        for member in trained:
            spent.update(member.history.costs)
        steps = len(loader) * scale.epochs
        on = TensorEvalSet("test", self.pixels[: scale.evaluated], self.targets[: scale.evaluated], normalise)
        return Pace(
            step=min(later - earlier for earlier, later in itertools.pairwise(ends)) / len(loader),
            memory=self._reserved() - held,
            graphs=captures["graphs"],
            parts={part: round(1000 * s / steps, 4) for part, s in spent.items()},
            evaluation=self._evaluation(trained[0], on, precision),
        )

    def _reserved(self) -> int:
        return torch.cuda.max_memory_reserved() if self.device.type == "cuda" else 0

    def _evaluation(self, member: Member, on: TensorEvalSet, precision: str) -> float:
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            member.task.evaluate(member.student, on, precision)
            synchronise(self.device)
            seconds.append(time.perf_counter() - began)
        return min(seconds)


class Measurements:
    """The measurements of this stage, in order of value; each is left out when the time is short."""

    def __init__(self, order: StageOrder):
        self.order, self.scale = order, SMOKE if order.smoke else Scale()
        self.trainer = Trainer(self.scale, torch.device(order.device))
        peaks = order.findings.of_stage("card", "matrix peak")
        self.peaks = {f["precision"]: f["tflops"] * 1e12 for f in peaks}

    def plan(self, loops: PlainLoops) -> list[tuple[str, float, Callable[[], None]]]:
        """Return (what, seconds that it may take, the measurement), the most valuable first."""
        first, *others = self.scale.pairs
        plan: list[tuple[str, float, Callable[[], None]]] = []

        def ours(pair: Pair, methods: Sequence[str], precision: str = "bf16", **options: bool) -> None:
            kinds = "methods" if len(set(methods)) > 1 else "kd"
            what = f"{pair}: {len(methods)} {kinds} in {precision}{''.join(f', {k} {v}' for k, v in options.items())}"
            plan.append((what, 10, lambda: self.ours(pair, methods, precision, **options)))

        def plain(pair: Pair, count: int, precision: str = "bf16") -> None:
            seconds = 4 * self.scale.plain_seconds
            plan.append(
                (
                    f"plain loop {pair}: {count} in {precision}",
                    seconds,
                    lambda: self.plain(loops, pair, count, precision),
                )
            )

        for pair in (first, *others):
            ours(pair, ["kd"])
            plain(pair, 1)
            ours(pair, ["kd"] * self.scale.packs[1])
        ours(self.scale.pairs[-1], self.scale.methods, "float32")  # the published row's recipe
        ours(self.scale.pairs[-1], self.scale.methods)
        plan.append(("kernels", 15, lambda: self.kernels(first, self.scale.packs[1])))
        for count in self.scale.loops[1:]:
            plain(first, count)
        for size in self.scale.packs[2:]:
            ours(first, ["kd"] * size)
        ours(first, ["kd"], graphs=False)
        for pair in others:
            for size in self.scale.packs[2:]:
                ours(pair, ["kd"] * size)
            for count in self.scale.loops[1:]:
                plain(pair, count)
        for precision in ("tf32", "float32"):
            plain(first, 1, precision)
            ours(first, ["kd"], precision)
            ours(first, ["kd"] * self.scale.packs[1], precision)
        if not self.order.smoke:
            plan.append(("compiled teacher", 40, lambda: self.ours(first, ["kd"], "bf16", compiled=True)))
            plan.append(("kernels alone", 15, lambda: self.kernels(first, 1)))
        return plan

    def ours(self, pair: Pair, methods: Sequence[str], precision: str, **options: bool) -> None:
        pace = self.trainer.train(pair, methods, precision, **options)
        members, batch = len(methods), self.scale.batch
        student, teacher = (measure_model(name).macs for name in (pair.student, pair.teacher))
        done = 2.0 * (teacher + 3 * members * student) * batch / pace.step  # operations of convolutions and products
        peak = self.peaks.get(precision)
        epoch = pace.step * -(-INFO.train_size // batch) + members * pace.evaluation
        self.order.findings.add(
            NAME, kind="ours", pair=str(pair), precision=precision, members=members,
            methods=sorted(set(methods)), **options,
            ms_per_step=round(1000 * pace.step, 4),
            images_per_s=round(batch / pace.step, 1),  # of each run
            images_per_s_of_all=round(members * batch / pace.step, 1),
            share_of_matrix_peak=round(done / peak, 4) if peak else None,
            memory_mib_per_member=round(pace.memory / members / 2**20, 1),
            captured_graphs=pace.graphs, parts_ms_per_step=pace.parts,
            evaluation_ms=round(1000 * pace.evaluation, 3),
            minutes_of_240_epochs=round(240 * epoch / 60, 3),
        )  # fmt: skip

    def plain(self, loops: PlainLoops, pair: Pair, count: int, precision: str) -> None:
        workers = 0 if self.order.smoke else max(1, cores() // count)
        order = PlainOrder(
            pair.teacher, pair.student, precision, self.order.device, self.scale.batch,
            200 if self.order.smoke else INFO.train_size, workers, self.scale.plain_seconds,
        )  # fmt: skip
        rates = loops.train([order] * count)
        self.order.findings.add(
            NAME, kind="plain", pair=str(pair), precision=precision, processes=count, workers=workers,
            images_per_s=round(sum(rates) / count, 1), images_per_s_of_all=round(sum(rates), 1),
        )  # fmt: skip

    def kernels(self, pair: Pair, members: int) -> None:
        """Profile a short training; the finding has the milliseconds per step of the GPU's kernels by kind."""
        cuda = self.trainer.device.type == "cuda"
        activity = torch.profiler.ProfilerActivity
        steps = self.scale.profiled_steps
        short = Trainer(replace(self.scale, steps=steps, least_steps=steps), self.trainer.device)
        with torch.profiler.profile(activities=[activity.CUDA if cuda else activity.CPU]) as profile:
            pace = short.train(pair, ["kd"] * members, "bf16")
        steps *= self.scale.epochs
        kinds, names = Counter[str](), Counter[str]()
        for event in profile.events():
            if event.device_type.name == self.trainer.device.type.upper():
                ms = (event.device_time_total if cuda else event.self_cpu_time_total) / 1000 / steps
                kind = (k for k, parts in KINDS if any(p in event.name.lower() for p in parts))
                kinds[next(kind, "other")] += ms
                names[event.name[:90]] += ms
        self.order.findings.add(
            NAME, kind="kernels", pair=str(pair), precision="bf16", members=members,
            ms_per_step=round(1000 * pace.step, 4), kernel_ms_per_step=round(sum(kinds.values()), 4),
            by_kind={k: round(ms, 4) for k, ms in kinds.most_common()},
            longest={k: round(ms, 4) for k, ms in names.most_common(12)},
        )  # fmt: skip

    def run(self) -> None:
        """Measure what no earlier call has measured, as far as the time goes."""
        findings, left_out = self.order.findings, []
        measured = {f["what"] for f in findings.of_stage(NAME, "measured")}
        loops = PlainLoops(max(self.scale.loops))
        try:
            for what, seconds, measure in self.plan(loops):
                if what in measured:
                    continue
                if seconds > self.order.seconds_left and not self.order.smoke:
                    left_out.append(what)
                    continue
                try:
                    measure()
                    findings.add(NAME, kind="measured", what=what)
                except Exception as error:  # one that fails costs only itself
                    first_line = f"{type(error).__name__}: {error}".splitlines()[0]
                    findings.add(NAME, kind="not measured", what=what, why=first_line)
                print(f"{what}: {self.order.seconds_left:.0f} s left", flush=True)
        finally:
            loops.close()
        findings.add(NAME, kind="plan", left_out=left_out)


def main() -> None:
    raise_stream_limit()  # as a job does
    order = StageOrder.from_command_line()
    if order.smoke:
        torch.set_num_threads(1)
    Measurements(order).run()


if __name__ == "__main__":
    main()
