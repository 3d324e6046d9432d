"""The DeepSpeed engine, for several ranks.

DeepSpeed gets bare parameters and torch's SGD. It sums the ranks' gradients, shards optimiser states (ZeRO stage 1) and
summed gradients (stage 2), and clips. The harness keeps precision, batch norms, data and teacher to itself. DeepSpeed
is imported when the first of these engines is made.
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

    The first loss of a stage starts it, with only the parameters that this loss reaches: DeepSpeed would change the
    others too, by weight decay.

    Raises:
        UserError: DeepSpeed is not installed.
    """

    def __init__(self, parameters: Parameters, recipe: Recipe, ranks: Ranks, zero_stage: int):
        self._library = _deepspeed()
        self._parameters, self._recipe, self._zero_stage = parameters, recipe, zero_stage
        self._engine: Any = None
        self._sgd: torch.optim.SGD
        self._trained: dict[int, nn.Parameter] = {}  # by index
        self._untrained: Parameters = []
        self._restored: dict[int, Tensor] = {}  # momenta, until there is an engine

    def backward(self, loss: Tensor, last: bool) -> None:
        if self._engine is None:
            self._start(loss)
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)
        if any(p.grad is not None for p in self._untrained):
            raise RuntimeError(
                "the loss reaches parameters that the stage's first one did not: engine deepspeed cannot begin to "
                "train them now"
            )

    def step(self, lr: float) -> None:
        set_lr(self._sgd, lr)
        self._engine.step()
        if not self._engine.was_step_applied():  # the norm is not finite; torch's clipping would end the run here too
            torch._foreach_mul_([p.data for p in self._trained.values()], torch.nan)

    def momenta(self) -> dict[int, Tensor]:
        if self._engine is None:
            return self._restored
        if self._recipe.momentum and self._zero_stage:
            full_state = self._library.utils.safe_get_full_optimizer_state
            return {i: full_state(p, "momentum_buffer") for i, p in self._trained.items()}
        return get_momenta(self._sgd, self._parameters)

    def restore(self, momenta: dict[int, Tensor]) -> None:
        self._restored = momenta

    def restart(self) -> None:
        if self._engine is not None:
            self._engine.destroy()  # otherwise its hooks stay
            self._engine.optimizer = None  # otherwise garbage collection undoes the next engine's hooks
        self._engine, self._restored = None, {}

    def _start(self, loss: Tensor) -> None:
        reached = reached_parameters(loss)
        self._trained = {i: p for i, p in enumerate(self._parameters) if p in reached}
        self._untrained = [p for p in self._parameters if p not in reached]
        trained = list(self._trained.values())
        self._sgd = make_sgd(trained, self._recipe)
        original = [p.data for p in trained]
        for p in trained:  # not channels last: DeepSpeed sends weights as bytes, and ZeRO lays them end to end
            p.data = p.data.clone(memory_format=torch.contiguous_format)
        self._engine = self._library.initialize(
            model=nn.ParameterList(trained), optimizer=self._sgd, config=self._config(trained), dist_init_required=False
        )[0]
        momenta = {i: m for i, m in self._restored.items() if i in self._trained}
        if self._zero_stage == 0:
            for p, data in zip(trained, original, strict=True):
                p.data = data
            set_momenta(self._sgd, self._parameters, momenta)
        elif self._recipe.momentum:
            for group in self._sgd.param_groups:
                for shard in group["params"]:  # by now this rank's shard of all parameters, in one tensor
                    self._sgd.state[shard]["momentum_buffer"] = torch.zeros_like(shard)
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # the first step would do it otherwise
            for i, m in momenta.items():
                self._library.utils.safe_set_full_optimizer_state(self._trained[i], m, "momentum_buffer")
        self._restored = {}

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
