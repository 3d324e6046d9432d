"""DeepSpeed as the engine of several processes.

It is given bare parameters and torch's SGD, and does what it is here for: it brings the processes' gradients together,
divides optimiser states (ZeRO stage 1) and summed gradients (stage 2) among them, and clips. Precision, batch norms,
the data and the teacher stay the harness's. DeepSpeed is imported when the first of these engines is made.
"""

import importlib
import logging
import os
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.base import Parameters
from harness.training.engines.native import get_momenta, make_sgd, set_lr, set_momenta


class DeepSpeedEngine:
    """One member's DeepSpeed engine.

    It is started by the first loss of a stage, with the parameters that this loss reaches: the others DeepSpeed would
    change too, by weight decay.

    Raises:
        UserError: DeepSpeed is not installed.
    """

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks, zero_stage: int):
        self._library = _deepspeed()
        self._parameters, self._recipe, self._zero_stage = parameters, recipe, zero_stage
        self._engine: Any = None
        self._sgd: torch.optim.SGD
        self._trained: dict[int, nn.Parameter] = {}  # by index
        self._left_alone: Parameters = []
        self._waiting: dict[int, Tensor] = {}  # momenta that were restored, until there is an engine

    def backward(self, loss: Tensor, last: bool) -> None:
        if self._engine is None:
            self._start(loss)
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)
        if any(p.grad is not None for p in self._left_alone):
            raise RuntimeError(
                "the loss reaches parameters that the stage's first one did not: engine deepspeed cannot begin to "
                "train them now"
            )

    def step(self, lr: float) -> None:
        set_lr(self._sgd, lr)
        self._engine.step()
        if not self._engine.was_step_applied():  # a norm that is not finite: torch's clipping ends the run there, too
            torch._foreach_mul_([p.data for p in self._trained.values()], torch.nan)

    def momenta(self) -> dict[int, Tensor]:
        if self._engine is None:
            return self._waiting
        if self._recipe.momentum and self._zero_stage:
            whole = self._library.utils.safe_get_full_optimizer_state
            return {i: whole(p, "momentum_buffer") for i, p in self._trained.items()}
        return get_momenta(self._sgd, self._parameters)

    def restore(self, momenta: dict[int, Tensor]) -> None:
        self._waiting = momenta

    def restart(self) -> None:
        if self._engine is not None:
            self._engine.destroy()  # or its hooks would go on
            self._engine.optimizer = None  # or it would undo the next engine's when it is collected as garbage
        self._engine, self._waiting = None, {}

    def _start(self, loss: Tensor) -> None:
        reached = leaves(loss)
        self._trained = {i: p for i, p in enumerate(self._parameters) if p in reached}
        self._left_alone = [p for p in self._parameters if p not in reached]
        trained = list(self._trained.values())
        self._sgd = make_sgd(trained, self._recipe)
        places = [p.data for p in trained]
        for p in trained:  # not channels last: DeepSpeed sends weights as bytes, and lays those of ZeRO end to end
            p.data = p.data.clone(memory_format=torch.contiguous_format)
        self._engine = self._library.initialize(
            model=nn.ParameterList(trained), optimizer=self._sgd, config=self._config(trained), dist_init_required=False
        )[0]
        momenta = {i: m for i, m in self._waiting.items() if i in self._trained}
        if self._zero_stage == 0:
            for p, place in zip(trained, places, strict=True):
                p.data = place
            set_momenta(self._sgd, self._parameters, momenta)
        elif self._recipe.momentum:
            for group in self._sgd.param_groups:
                for share in group["params"]:  # by now this process's share of all parameters, in one piece
                    self._sgd.state[share]["momentum_buffer"] = torch.zeros_like(share)
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # what the first step would do
            for i, m in momenta.items():
                self._library.utils.safe_set_full_optimizer_state(self._trained[i], m, "momentum_buffer")
        self._waiting = {}

    def _config(self, trained: Parameters) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": self._zero_stage}
        if self._zero_stage:
            # One bucket for all gradients. Its default, 500 million values, is taken from the memory whole.
            zero["reduce_bucket_size"] = sum(p.numel() for p in trained)
            # Without clipping nobody reads the norm; and a step whose norm is not finite would be left out.
            zero["compute_grad_norm"] = self._recipe.clip_norm is not None
        return {
            "train_micro_batch_size_per_gpu": 1,  # must be stated; nothing here depends on it
            "gradient_allreduce_op": "sum",
            "gradient_clipping": self._recipe.clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": zero,
        }


def leaves(loss: Tensor) -> set[Any]:
    """The parameters that a loss's gradient comes to."""
    found, seen, left = set(), set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            found.add(leaf)
        left += [before for before, _ in node.next_functions]
    return found


@cache
def _deepspeed() -> Any:
    """The package, kept from what it would do unasked."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")  # as `Ranks.device` takes it
    try:
        library = importlib.import_module("deepspeed")
    except ImportError as e:
        raise UserError(
            f"engine deepspeed: {e}; install it on the nodes: pip install 'kd-harness[deepspeed]'"
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.all_gather_into_tensor`", FutureWarning)  # DeepSpeed's calls
    # It would compile C++ for collectives that are not used here; a process killed meanwhile leaves a lock behind.
    importlib.import_module("deepspeed.ops").__compatible_ops__["deepspeed_shm_comm"] = False
    return library
