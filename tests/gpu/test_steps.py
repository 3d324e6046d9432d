"""Packs on a GPU: captured as graphs, in streams of their own, in bfloat16, and never waiting for the device."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.training import step as step_module
from harness.training.member import Member
from methods.base import Batch, Outputs
from tests.support import eager_methods
from tests.support.packs import CPU, CUDA, EPOCHS, SHIPPED, Counted, assert_same_end, train

ONLY_EAGER = {"kdsvd"}  # its eigenvalues are checked on the host


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_graphs_train_every_method_as_eager_steps(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All methods are one pack, so that each trains in a stream of its own."""
    eager, first = train(SHIPPED, None, CUDA, precision=precision)
    capsys.readouterr()
    capture = Counted()
    captured, second = train(SHIPPED, capture, CUDA, precision=precision)
    assert not first.failures and not second.failures
    given_up = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line}
    assert given_up == ONLY_EAGER
    for use in SHIPPED:
        if precision == "float32":
            assert_same_end(eager[use], captured[use])
        assert captured[use].history.epoch == EPOCHS and not captured[use].history.diverged
        assert all(value.isfinite().all() for value in captured[use].tensors().values() if value.is_floating_point())
    members = [m for use, m in captured.items() if use not in given_up]
    stages = sum(EPOCHS + bool(m.first_stage.epochs) for m in members)
    assert 1 <= capture.captures - stages <= EPOCHS + 2, "the teacher's, one for each set of maps"
    assert capture.replays >= 2 * sum(EPOCHS + m.first_stage.epochs for m in members)


@pytest.mark.parametrize("use", ["kd", "rekd", "crd"])
def test_a_gpu_trains_as_a_cpu_and_alone_as_in_a_pack(use: str) -> None:
    on_cpu, _ = train([use], None, CPU)
    alone, _ = train([use], Counted(), CUDA)
    packed, _ = train(["student", use, "dkd"], Counted(), CUDA)
    first = {name: value for epoch, name, value in on_cpu[use].history.curves if epoch == 1 and "train" in name}
    assert first
    for members in (alone, packed):
        assert_same_end(alone[use], members[use])
        got = {name: value for epoch, name, value in members[use].history.curves if epoch == 1}
        assert {name: got[name] for name in first} == pytest.approx(first, rel=1e-2)


@pytest.mark.parametrize("odd", ["CountsInPython", "HoldsATensor", "ReplacesABuffer", "DrawsOnTheHost"])
def test_what_no_graph_can_hold_stays_eager(odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    use = f"{eager_methods.__name__}:{odd}"
    members, watcher = train([use, "kd"], Counted(), CUDA)
    assert not watcher.failures and members[use].history.epoch == EPOCHS
    messages = [line for line in capsys.readouterr().out.splitlines() if "without a CUDA graph" in line]
    assert [line.split(" ")[0] for line in messages] == [use]


def test_only_a_method_that_raises_during_capture_fails() -> None:
    use = f"{eager_methods.__name__}:RaisesLater"
    eager, _ = train(["kd"], None, CUDA)
    captured, watcher = train([use, "kd"], Counted(), CUDA)
    assert watcher.failures.keys() == {use} and str(watcher.failures[use]) == "a bug"
    assert_same_end(eager["kd"], captured["kd"])


def test_no_eager_step_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_step: Callable[..., Tensor] = step_module.compute_step

    def watched(member: Member, batch: Batch, teacher: Outputs, batch_size: int) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return compute_step(member, batch, teacher, batch_size)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(step_module, "compute_step", watched)
    _, watcher = train(SHIPPED, None, CUDA)
    assert watcher.failures.keys() == ONLY_EAGER
