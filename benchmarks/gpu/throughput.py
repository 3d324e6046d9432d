"""Stage `throughput`: images per second of KD alone and in packs, beside the plain PyTorch loop on the same card."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu.kernels import KernelProfile
from benchmarks.gpu.pack_trainer import INFO, CifarTrainer, Pair, Scale
from benchmarks.gpu.plain_loop import PlainLoops, PlainOrder
from benchmarks.gpu.stage_order import StageOrder
from harness.hardware import cores
from harness.models.facts import measure_model
from harness.training.cuda.streams import raise_stream_limit

NAME = "throughput"
MOST_WORKERS = 8  # of a plain loop's DataLoader
FIRST_GUESS = 8.0  # seconds of a measurement, before one of its kind has been made
PROFILED = 10  # steps


@dataclass(frozen=True)
class Plan:
    """The measurements' sizes."""

    pairs: tuple[Pair, ...] = (Pair("resnet32x4", "resnet8x4"), Pair("resnet56", "resnet20"))
    packs: tuple[int, ...] = (8, 4, 2, 16)  # members, in order of value
    loops: tuple[int, ...] = (4, 8)  # processes of the plain loop at once
    methods: tuple[str, ...] = ("student", "kd", "fitnets", "crd", "rekd")  # the published row's, trained in one pack
    scale: Scale = Scale()
    precisions: tuple[str, ...] = ("tf32", "float32")  # besides bf16
    plain_seconds: float = 2.0


SMOKE = Plan(
    (Pair("resnet8", "resnet8"),), (2,), (), ("student", "kd"),
    Scale(batch=2, paced_steps=1, seconds=0.0, least_steps=2, images=20, evaluated=2), ("float32",), plain_seconds=0.1,
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """Something to measure: its name, its kind, and what measures it."""

    what: str
    kind: str
    measure: Callable[[], None]


class Throughput:
    """The measurements of this stage, in order of value, as far as the time goes."""

    def __init__(self, order: StageOrder):
        self.order, self.plan = order, SMOKE if order.smoke else Plan()
        self.trainer = CifarTrainer(self.plan.scale, torch.device(order.device))
        self.loops: PlainLoops | None = None
        peaks = order.findings.of_stage("card", "matrix peak")
        self.peaks = {f["precision"]: f["tflops"] * 1e12 for f in peaks}

    def measurements(self) -> list[Measurement]:
        """Return what is measured, the most valuable first."""
        first, *others = self.plan.pairs
        every: list[Measurement] = []

        def ours(pair: Pair, methods: Sequence[str], precision: str = "bf16", **options: bool) -> None:
            kinds = "methods" if len(set(methods)) > 1 else "kd"
            what = f"{pair}: {len(methods)} {kinds} in {precision}{''.join(f', {k} {v}' for k, v in options.items())}"
            every.append(Measurement(what, "ours", lambda: self.ours(pair, methods, precision, **options)))

        def plain(pair: Pair, count: int = 1, precision: str = "bf16") -> None:
            what = f"{pair}: plain loop x {count} in {precision}"
            every.append(Measurement(what, "plain", lambda: self.plain(pair, count, precision)))

        def profiled(pair: Pair, members: int) -> None:
            what = f"{pair}: kernels of {members} kd in bf16"
            every.append(Measurement(what, "kernels", lambda: self.kernels(pair, members)))

        for pair in (first, *others):
            ours(pair, ["kd"])
            plain(pair)
            ours(pair, ["kd"] * self.plan.packs[0])
        ours(self.plan.pairs[-1], self.plan.methods, "float32")  # the published row's recipe
        profiled(first, self.plan.packs[0])
        for pair in (first, *others):
            for count in self.plan.loops:
                plain(pair, count)
            for size in self.plan.packs[1:]:
                ours(pair, ["kd"] * size)
        ours(self.plan.pairs[-1], self.plan.methods)
        ours(first, ["kd"], graphs=False)
        for precision in self.plan.precisions:
            plain(first, 1, precision)
            ours(first, ["kd"], precision)
            ours(first, ["kd"] * self.plan.packs[0], precision)
        if not self.order.smoke:
            profiled(first, 1)
            ours(first, ["kd"], compiled=True)
        return every

    def ours(self, pair: Pair, methods: Sequence[str], precision: str, **options: bool) -> None:
        pace = self.trainer.time(pair, methods, precision, **options)
        members, batch = len(methods), self.plan.scale.batch
        student, teacher = (measure_model(name).macs for name in (pair.student, pair.teacher))
        done = 2.0 * (teacher + 3 * members * student) * batch / pace.step  # operations of convolutions and products
        peak = self.peaks.get(precision)
        epoch = pace.step * -(-(INFO.train_size or 0) // batch) + members * pace.evaluation
        self.order.findings.add(
            NAME, "ours", pair=str(pair), precision=precision, members=members, methods=sorted(set(methods)), **options,
            ms_per_step=round(1000 * pace.step, 4), timed_steps=pace.steps,
            images_per_s=round(batch / pace.step, 1),  # of each run
            images_per_s_of_all=round(members * batch / pace.step, 1),
            share_of_matrix_peak=round(done / peak, 4) if peak else None,
            memory_mib=round(pace.memory / 2**20, 1), captured_graphs=pace.graphs, parts_ms_per_step=pace.parts,
            evaluation_ms=round(1000 * pace.evaluation, 3), minutes_of_240_epochs=round(240 * epoch / 60, 3),
        )  # fmt: skip

    def plain(self, pair: Pair, count: int, precision: str) -> None:
        if self.loops is None:
            self.loops = PlainLoops(max((1, *self.plan.loops)))
        workers = 0 if self.order.smoke else max(1, min(MOST_WORKERS, cores() // count))
        images = 100 if self.order.smoke else INFO.train_size or 0
        order = PlainOrder(
            pair.teacher, pair.student, precision, self.order.device, self.plan.scale.batch, images, workers,
            self.plan.plain_seconds,
        )  # fmt: skip
        rates = self.loops.train([order] * count)
        self.order.findings.add(
            NAME, "plain", pair=str(pair), precision=precision, processes=count, workers=workers,
            images_per_s=round(sum(rates) / count, 1), images_per_s_of_all=round(sum(rates), 1),
        )  # fmt: skip

    def kernels(self, pair: Pair, members: int) -> None:
        profile = KernelProfile(self.trainer.targets.device)
        self.trainer.scale = replace(
            self.plan.scale, seconds=0.0, least_steps=min(PROFILED, self.plan.scale.least_steps)
        )
        try:
            pace = self.trainer.time(pair, ["kd"] * members, "bf16", begin=profile.start, end=profile.stop)
        finally:
            self.trainer.scale = self.plan.scale
        self.order.findings.add(
            NAME, "kernels", pair=str(pair), precision="bf16", members=members,
            ms_per_step=round(1000 * pace.step, 4), **profile.per_step(pace.steps),
        )  # fmt: skip

    def run(self) -> bool:
        """Measure what has not been measured or, in this call, failed. Return False after an error of the GPU, after
        which this process can do nothing more."""
        findings, left_out, longest = self.order.findings, [], dict[str, float]()
        tried = {f["what"] for f in findings.of_stage(NAME, "measured")}
        tried |= {f["what"] for f in findings.of_stage(NAME, "not measured") if f["at"] >= self.order.began}
        try:
            for m in self.measurements():
                if m.what in tried:
                    continue
                began = time.time()
                if self.order.seconds_left < longest.get(m.kind, FIRST_GUESS) and not self.order.smoke:
                    left_out.append(m.what)
                    continue
                try:
                    m.measure()
                    findings.add(NAME, "measured", what=m.what)
                except Exception as error:  # one that fails costs only itself
                    first_line = f"{type(error).__name__}: {error}".splitlines()[0]
                    findings.add(NAME, "not measured", what=m.what, why=first_line)
                    if not gpu_works(self.order.device):
                        return False
                longest[m.kind] = max(longest.get(m.kind, 0.0), 1.2 * (time.time() - began))
                print(f"{m.what}: {self.order.seconds_left:.0f} s left", flush=True)
        finally:
            if self.loops:
                self.loops.close()
        findings.add(NAME, "plan", left_out=left_out)
        return True


def gpu_works(device: str) -> bool:
    """Return whether this process can still use the device: some errors of a GPU stay."""
    try:
        if device == "cuda":
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def main() -> None:
    raise_stream_limit()  # as a job does
    order = StageOrder.from_command_line()
    if order.smoke:
        torch.set_num_threads(1)
    sys.exit(0 if Throughput(order).run() else 1)


if __name__ == "__main__":
    main()
