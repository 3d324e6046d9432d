"""The DeepSpeed engine, for several ranks.

DeepSpeed gets bare parameters and an optimiser. It sums the ranks' gradients, shards optimiser states (ZeRO stage 1)
and summed gradients (stage 2), and clips. The harness keeps precision, batch norms, data and teacher to itself.
DeepSpeed is imported when the first of these engines is made.
"""

import gc
import importlib
import logging
import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import UserError
from harness.spec.optimizers import check_deepspeed
from harness.spec.schema import Recipe
from harness.training.distributed.ranks import Ranks
from harness.training.engines.base import Groups, Parameters, Rate, State, one_group
from harness.training.engines.lamb import TorchLAMB

# The states of each optimiser: our names, and torch's.
STATES = {
    "sgd": {"momentum": "momentum_buffer"},
    "adamw": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
    "lamb": {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"},
}


class DeepSpeedEngine:
    """One member's DeepSpeed engine.

    DeepSpeed gets only the parameters that a step's first loss reaches, because it would change the others too, by
    weight decay. It starts again, with the state so far, at each step whose loss reaches others than the last one's.

    Raises:
        UserError: DeepSpeed is not installed, or cannot do what the optimiser needs.
    """

    _engine: Any = None

    def __init__(
        self, parameters: Parameters, recipe: Recipe, ranks: Ranks, groups: Groups | None = None, *, zero_stage: int
    ):
        check_deepspeed(recipe.optimizer, zero_stage)
        self._library = _deepspeed()
        self._parameters, self._recipe, self._zero_stage = parameters, recipe, zero_stage
        self._groups = groups or one_group(parameters, recipe)
        if _forget_group not in ranks.at_end:
            ranks.at_end.append(_forget_group)
        self._optimizer: torch.optim.Optimizer
        self._trained: dict[int, nn.Parameter] = {}  # those that DeepSpeed has, by index
        self._state: State = {}  # of parameters that DeepSpeed does not have
        self._steps: dict[int, int] = {}  # by parameter; for the optimisers that count them
        self._scalars: Parameters = []  # trained parameters without dimensions
        self._begins_step = True

    def __del__(self) -> None:
        """Release DeepSpeed's engine: its hooks would keep it, and the process group that it holds."""
        self._stop()

    def backward(self, losses: Sequence[Tensor], last: bool) -> None:
        (loss,) = losses
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

    def step(self, lr: Rate) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if self._clips_here:
            nn.utils.clip_grad_norm_(self._trained.values(), self._recipe.clip_norm)  # type: ignore[arg-type]
        self._engine.step()
        self._restore_scalars()
        if self._counts_steps:
            self._steps |= {i: self._steps.get(i, 0) + 1 for i in self._trained}
        if not self._engine.was_step_applied():  # the norm is not finite; torch's clipping would end the run here too
            torch._foreach_mul_([p.data for p in self._trained.values()], torch.nan)

    def drop_gradients(self) -> None:
        for p in self._parameters:
            p.grad = None

    def state(self) -> State:
        state = {name: dict(tensors) for name, tensors in self._state.items()}
        if self._engine is not None and self._has_state:
            for name, key in STATES[self._recipe.optimizer].items():
                state[name] = state.get(name, {}) | {i: self._whole(p, key) for i, p in self._trained.items()}
        if self._counts_steps:
            state["steps"] = {i: torch.tensor(float(steps)) for i, steps in self._steps.items()}
        return state

    def restore(self, state: State) -> None:
        self._state = {name: tensors for name, tensors in state.items() if name != "steps"}
        self._steps = {i: int(steps) for i, steps in state.get("steps", {}).items()}

    def restart(self) -> None:
        self._stop()
        self._state, self._steps = {}, {}

    @property
    def _clips_here(self) -> bool:
        """Return whether gradients lie whole, as torch clips them. DeepSpeed's own way of that fails for parameters
        without dimensions."""
        return self._recipe.clip_norm is not None and self._zero_stage == 0

    @property
    def _has_state(self) -> bool:
        return bool(self._recipe.optimizer != "sgd" or self._recipe.momentum)

    @property
    def _counts_steps(self) -> bool:
        return self._recipe.optimizer != "sgd"

    def _whole(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Return a parameter's state, of which ZeRO leaves each rank a shard."""
        if self._zero_stage:
            whole: Tensor = self._library.utils.safe_get_full_optimizer_state(parameter, key)
            return whole
        tensor: Tensor = self._optimizer.state[parameter][key]
        return tensor

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.destroy()  # otherwise its hooks stay
            self._engine.optimizer = None  # otherwise garbage collection undoes the next engine's hooks
        self._engine, self._trained = None, {}

    def _start(self, trained: dict[int, nn.Parameter]) -> None:
        state = self.state()
        self._stop()
        self._trained = trained
        self._state = {
            name: {i: tensor for i, tensor in tensors.items() if i not in trained}
            for name, tensors in state.items()
            if name != "steps"
        }
        parameters = list(trained.values())
        self._optimizer = self._make_optimizer()
        original = [p.data for p in parameters]
        # DeepSpeed sends weights as bytes, which needs a dimension, and ZeRO lays them end to end.
        for p in parameters:
            p.data = p.data.clone(memory_format=torch.contiguous_format).reshape(p.shape or (1,))
        # Otherwise DeepSpeed makes a group like it, whose connections nobody would have checked.
        self._library.utils.groups._WORLD_GROUP = dist.group.WORLD
        self._engine = self._library.initialize(
            model=nn.ParameterList(parameters), optimizer=self._optimizer, config=self._config(parameters),
            dist_init_required=False,
        )[0]  # fmt: skip
        if self._zero_stage == 0:
            for p, data in zip(parameters, original, strict=True):
                p.data = data
        self._scalars = [p for p, data in zip(parameters, original, strict=True) if data.dim() == 0]
        self._restore_scalars()
        if self._has_state:
            self._set_state(state)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        recipe, groups = self._recipe, self._trained_groups()
        if recipe.optimizer == "lamb":
            return TorchLAMB(groups, recipe.lr, recipe.betas, recipe.eps)
        if recipe.optimizer == "adamw":
            return torch.optim.AdamW(groups, recipe.lr, recipe.betas, recipe.eps, fused=True)
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.nesterov, fused=True)

    def _trained_groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters in torch's form of groups. Those of one group have taken equally many steps:
        ZeRO lays them end to end, with one count for all."""
        groups: dict[tuple[int, int], list[int]] = {}
        for number, group in enumerate(self._groups):
            for i in group.indices:
                if i in self._trained:
                    groups.setdefault((number, self._steps.get(i, 0)), []).append(i)
        return [
            {
                "params": [self._trained[i] for i in indices],
                "weight_decay": self._groups[number].weight_decay,
                "lr_scale": self._groups[number].lr_scale,
                "taken": steps,
            }
            for (number, steps), indices in groups.items()
        ]

    def _restore_scalars(self) -> None:
        """Take away the dimension that DeepSpeed gives to tensors without one when it starts and at each step."""
        for p in self._scalars:
            p.data = p.data.view(())

    def _set_state(self, state: State) -> None:
        """Give the trained parameters their state so far, or those without one a state of 0: SGD's first step is the
        same from there, and torch's fused SGD does not take parameters with and without momenta together."""
        names = STATES[self._recipe.optimizer]
        for group in self._optimizer.param_groups:
            for p in group["params"]:  # with ZeRO this rank's shard of all parameters, in one tensor
                self._optimizer.state[p] |= {key: torch.zeros_like(p) for key in names.values()}
                if self._counts_steps:
                    self._optimizer.state[p]["step"] = torch.tensor(float(group["taken"]), device=p.device)
        if self._zero_stage:
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()  # the first step would do it otherwise
        for name, key in names.items():
            for i, p in self._trained.items():
                if (tensor := state.get(name, {}).get(i)) is None:
                    continue
                if self._zero_stage:
                    self._library.utils.safe_set_full_optimizer_state(p, tensor, key)
                else:
                    self._optimizer.state[p][key].copy_(tensor)

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
            "gradient_clipping": 0.0 if self._clips_here else self._recipe.clip_norm or 0.0,
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
