"""The DeepSpeed engine, for several ranks.

DeepSpeed gets bare parameters and torch's SGD. It sums the ranks' gradients, shards optimiser states (ZeRO stage 1) and
summed gradients (stage 2), and clips. The harness keeps precision, batch norms, data and teacher to itself. DeepSpeed
is imported when the first of these engines is made.
"""

import gc
import importlib
import logging
import os
import warnings
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import UserError
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.base import Parameters


class DeepSpeedEngine:
    """One member's DeepSpeed engine.

    DeepSpeed gets only the parameters that a step's first loss reaches, because it would change the others too, by
    weight decay. It starts again, with the momenta so far, at each step whose loss reaches others than the last one's.

    Raises:
        UserError: DeepSpeed is not installed.
    """

    _engine: Any = None

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks, zero_stage: int):
        self._library = _deepspeed()
        self._parameters, self._recipe, self._zero_stage = parameters, recipe, zero_stage
        if _forget_group not in ranks.at_end:
            ranks.at_end.append(_forget_group)
        self._sgd: torch.optim.SGD
        self._trained: dict[int, nn.Parameter] = {}  # those that DeepSpeed has, by index
        self._momenta: dict[int, Tensor] = {}  # of parameters that DeepSpeed does not have
        self._scalars: Parameters = []  # trained parameters without dimensions
        self._begins_step = True

    def __del__(self) -> None:
        """Release DeepSpeed's engine: its hooks would keep it, and the process group that it holds."""
        self._stop()

    def backward(self, loss: Tensor, last: bool) -> None:
        if self._begins_step:
            reached = reached_parameters(loss)
            trained = {i: p for i, p in enumerate(self._parameters) if p in reached}
            if self._engine is None or trained.keys() != self._trained.keys():
                self._start(trained)
        self._begins_step = last
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)
        if any(p.grad is not None for i, p in enumerate(self._parameters) if i not in self._trained):
            raise RuntimeError(
                "the loss of a micro-batch reaches parameters that the step's first one did not: engine deepspeed "
                "cannot begin to train them in mid-step"
            )

    def step(self, lr: float) -> None:
        for group in self._sgd.param_groups:
            group["lr"] = lr
        self._engine.step()
        self._restore_scalars()
        if not self._engine.was_step_applied():  # the norm is not finite; torch's clipping would end the run here too
            torch._foreach_mul_([p.data for p in self._trained.values()], torch.nan)

    def momenta(self) -> dict[int, Tensor]:
        if self._engine is None or not self._recipe.momentum:
            return self._momenta
        if self._zero_stage:
            full_state = self._library.utils.safe_get_full_optimizer_state
            trained = {i: full_state(p, "momentum_buffer") for i, p in self._trained.items()}
        else:
            trained = {i: self._sgd.state[p]["momentum_buffer"] for i, p in self._trained.items()}
        return self._momenta | trained

    def restore(self, momenta: dict[int, Tensor]) -> None:
        self._momenta = momenta

    def restart(self) -> None:
        self._stop()
        self._momenta = {}

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.destroy()  # otherwise its hooks stay
            self._engine.optimizer = None  # otherwise garbage collection undoes the next engine's hooks
        self._engine, self._trained = None, {}

    def _start(self, trained: dict[int, nn.Parameter]) -> None:
        momenta = self.momenta()
        self._stop()
        self._trained = trained
        self._momenta = {i: m for i, m in momenta.items() if i not in trained}
        parameters = list(trained.values())
        recipe = self._recipe
        self._sgd = torch.optim.SGD(
            parameters, recipe.lr, recipe.momentum, 0, recipe.weight_decay, recipe.nesterov, fused=True
        )
        original = [p.data for p in parameters]
        # DeepSpeed sends weights as bytes, which needs a dimension, and ZeRO lays them end to end.
        for p in parameters:
            p.data = p.data.clone(memory_format=torch.contiguous_format).reshape(p.shape or (1,))
        # Otherwise DeepSpeed makes a group like it, whose connections nobody would have checked.
        self._library.utils.groups._WORLD_GROUP = dist.group.WORLD
        self._engine = self._library.initialize(
            model=nn.ParameterList(parameters), optimizer=self._sgd, config=self._config(parameters),
            dist_init_required=False,
        )[0]  # fmt: skip
        if self._zero_stage == 0:
            for p, data in zip(parameters, original, strict=True):
                p.data = data
        self._scalars = [p for p, data in zip(parameters, original, strict=True) if data.dim() == 0]
        self._restore_scalars()
        if recipe.momentum:
            self._set_momenta(momenta)

    def _restore_scalars(self) -> None:
        """Take away the dimension that DeepSpeed gives to tensors without one when it starts and at each step."""
        for p in self._scalars:
            p.data = p.data.view(())

    def _set_momenta(self, momenta: dict[int, Tensor]) -> None:
        """Give the trained parameters these momenta, or those without one a momentum of 0: SGD's first step is the
        same from there, and torch's fused SGD does not take parameters with and without momenta together."""
        for group in self._sgd.param_groups:
            for p in group["params"]:  # with ZeRO this rank's shard of all parameters, in one tensor
                self._sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        if self._zero_stage:
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # the first step would do it otherwise
        for i, p in self._trained.items():
            if i not in momenta:
                continue
            if self._zero_stage:
                self._library.utils.safe_set_full_optimizer_state(p, momenta[i], "momentum_buffer")
            else:
                self._sgd.state[p]["momentum_buffer"].copy_(momenta[i])

    def _config(self, trained: Parameters) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": self._zero_stage}
        if self._zero_stage:
            # One bucket for all gradients. The default size, 500 million values, would be allocated in full.
            zero["reduce_bucket_size"] = sum(p.numel() for p in trained)
            # Without clipping nobody reads the norm, and DeepSpeed would skip a step whose norm is not finite.
            zero["compute_grad_norm"] = self._recipe.clip_norm is not None
        return {
            "train_micro_batch_size_per_gpu": 1,  # required, but without effect here
            "gradient_allreduce_op": "sum",
            "gradient_clipping": self._recipe.clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": zero,
        }


def reached_parameters(loss: Tensor) -> set[Any]:
    """Return the parameters that a loss's gradient reaches."""
    parameters, visited, pending = set(), set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            parameters.add(leaf)
        pending += [next_node for next_node, _ in node.next_functions]
    return parameters


def _forget_group() -> None:
    """Let the process group, and gloo's threads with it, end before the interpreter does."""
    gc.collect()  # engines in reference cycles
    _deepspeed().utils.groups._WORLD_GROUP = None


@cache
def _deepspeed() -> Any:
    """Import DeepSpeed, without its logging, its warnings and its compiler runs."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")  # the default of `Ranks.device` too
    try:
        library = importlib.import_module("deepspeed")
    except ImportError as e:
        raise UserError(
            f"engine deepspeed: {e}; install it on the nodes: pip install 'kd-harness[deepspeed]'"
        ) from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`torch.distributed.all_gather_into_tensor`", FutureWarning)  # DeepSpeed's calls
    # It would compile C++ for collectives that are not used here, and leave a lock behind if it is killed meanwhile.
    importlib.import_module("deepspeed.ops").__compatible_ops__["deepspeed_shm_comm"] = False
    return library
