"""Steps recorded once and played again: on a GPU as a CUDA graph, which spares the host the launch of every kernel.

What is recorded reads and writes tensors at fixed addresses. Python does not run when it is played: whatever a step
takes from Python (a learning rate, the epoch) is baked in, and a step that keeps state in Python is not recorded.
"""

import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Work = Callable[[], object]
# Of work and the generator it draws from, if any: what does the same work at each call. Recording itself does nothing.
Capture = Callable[[Work, torch.Generator | None], Work]


def capture_cuda_graph(work: Work, generator: torch.Generator | None) -> Work:
    """A CUDA graph of ``work``; it is to be played in the stream that is current now.

    Raises whatever ``work`` raises, and torch's errors for what a graph cannot hold, such as waiting for the device.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    if generator is not None:
        graph.register_generator_state(generator)
    beside = stream if stream != torch.cuda.default_stream() else None  # the default stream cannot be recorded
    with torch.cuda.stream(stream):  # torch.cuda.graph leaves another one behind when it fails
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            work()
    return graph.replay


class CapturedStep:
    """Work that is done as it stands when something new is baked into it, recorded the next time, then played."""

    def __init__(self, record: Capture | None, name: str, outside: Callable[[], object], undo: Work):
        """``outside``: the state of which a recording would know nothing; ``undo``: tidies up after a failed one."""
        self._record, self._name, self._outside, self._undo = record, name, outside, undo
        self._baked: Hashable = None
        self._play: Work | None = None

    def plays(self, baked: Hashable) -> bool:
        """Whether the next call runs no Python."""
        return self._play is not None and baked == self._baked

    def __call__(self, baked: Hashable, work: Work, generator: torch.Generator | None = None) -> None:
        """Does ``work`` once. Calls with equal ``baked`` are given work that does the same on the same tensors."""
        if self._record is None:
            work()
        elif baked != self._baked:
            self._play, self._baked = None, baked  # the old graph's memory is free for the new one
            before = self._outside()
            work()
            if before != self._outside():
                self._give_up("it draws from torch's own random numbers or keeps state outside of its buffers")
        else:
            if self._play is None:
                try:
                    self._play = self._record(work, generator)
                except Exception as error:
                    self._undo()
                    self._give_up(f"{type(error).__name__}: {error}".splitlines()[0])
                    work()
                    return
            self._play()

    def _give_up(self, why: str) -> None:
        print(f"{self._name} runs without a CUDA graph: {why}", flush=True)
        self._record = None


class StaticInputs:
    """Tensors that stay where they are: what is loaded is copied into them, for recorded work to find it there."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self.moved = 0  # how often a tensor has come to lie elsewhere

    def load(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same values, by the same names, at the addresses that these names had before."""
        for name, tensor in tensors.items():
            held = self._held.get(name)
            if held is None or (held.shape, held.dtype) != (tensor.shape, tensor.dtype):
                self._held[name] = tensor.clone()
                self.moved += 1
            elif held is not tensor:
                held.copy_(tensor)
        return {name: self._held[name] for name in tensors}


def state_outside_tensors(modules: Iterable[nn.Module]) -> list[object]:
    """What a step of these modules may change besides the values of their tensors, to be compared with ``==``: their
    attributes, the tensors' addresses, and the state of random numbers that are not the step's own."""
    states = [random.getstate(), torch.get_rng_state().tolist()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state().tolist())
    return [*(_marks(vars(m)) for module in modules for m in module.modules()), *states]


def _marks(value: Any) -> object:
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, dict):
        return {k: _marks(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | deque):
        return [_marks(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else id(value)
