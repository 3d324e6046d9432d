"""CUDA graphs: a step is captured once and replayed, which spares the host the launch of every kernel.

A graph reads and writes tensors at fixed addresses. Python does not run when it is replayed: whatever a step reads from
Python (a learning rate, the epoch) is baked in, and a step that keeps state in Python is not captured.
"""

import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")
Work = Callable[[], object]
# Captures work, which draws from the generator if there is one, and returns its replay. Capturing computes nothing.
Capture = Callable[[Work, torch.Generator | None], Work]


def capture_cuda_graph(work: Work, generator: torch.Generator | None) -> Work:
    """Capture ``work`` as a CUDA graph and return its replay, for the stream that is current now.

    Raises whatever ``work`` raises, and torch's errors for what a graph cannot hold, such as waiting for the device.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    if generator is not None:
        graph.register_generator_state(generator)
    capture_stream = stream if stream != torch.cuda.default_stream() else None  # the default stream cannot be captured
    with torch.cuda.stream(stream):  # torch.cuda.graph leaves another one current when it fails
        with torch.cuda.graph(graph, stream=capture_stream, capture_error_mode="thread_local"):
            work()
    return graph.replay


class CapturedStep(Generic[Result]):
    """Work that runs eagerly when something new is baked into it, is captured the next time, and then replayed.

    Without a ``capture`` it always runs eagerly.
    """

    def __init__(self, capture: Capture | None, name: str, outside_state: Callable[[], object], discard: Work):
        """``outside_state`` returns state that a graph would not see; ``discard`` cleans up after a failed capture."""
        self._capture, self._name, self._outside_state, self._discard = capture, name, outside_state, discard
        self._baked_in: Hashable = None
        self._replay: Work | None = None
        self._result: Any = None

    def replays(self, baked_in: Hashable) -> bool:
        """Return whether the next call runs no Python."""
        return self._replay is not None and baked_in == self._baked_in

    def __call__(
        self, baked_in: Hashable, work: Callable[[], Result], generator: torch.Generator | None = None
    ) -> Result:
        """Do ``work`` once. With equal ``baked_in`` it must do the same on the same tensors; with None it runs eagerly.

        A replay returns the tensors that the captured work returned, with new values.
        """
        if self._capture is None or baked_in is None:
            return work()

        def run() -> None:
            self._result = work()

        if baked_in != self._baked_in:
            self._replay = self._result = None  # the old graph's memory is free for the new one
            self._baked_in = baked_in
            before = self._outside_state()
            run()
            if before != self._outside_state():
                self._give_up("it draws from torch's own random numbers or keeps state outside of its buffers")
        else:
            if self._replay is None:
                try:
                    self._replay = self._capture(run, generator)
                except Exception as error:
                    self._discard()
                    self._give_up(f"{type(error).__name__}: {error}".splitlines()[0])
                    return work()
            self._replay()
        result: Result = self._result
        return result

    def _give_up(self, reason: str) -> None:
        print(f"{self._name} runs without a CUDA graph: {reason}", flush=True)
        self._capture = None


class StaticInputs:
    """Tensors at fixed addresses: new values are copied into them, and captured work finds them there."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.moves = 0  # how often a tensor has got another address

    def load(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the same values by the same names, at the addresses that these names had before."""
        for name, tensor in tensors.items():
            static = self._tensors.get(name)
            if static is None or (static.shape, static.dtype) != (tensor.shape, tensor.dtype):
                self._tensors[name] = tensor.clone()
                self.moves += 1
            elif static is not tensor:
                static.copy_(tensor)
        return {name: self._tensors[name] for name in tensors}


def state_outside_tensors(modules: Iterable[nn.Module]) -> list[object]:
    """Return what a step of these modules may change besides the values of their tensors, comparable with ``==``: their
    attributes, the tensors' addresses, and the state of random numbers that are not the step's own."""
    states = [random.getstate(), torch.get_rng_state().tolist()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state().tolist())
    return [*(_fingerprint(vars(m)) for module in modules for m in module.modules()), *states]


def _fingerprint(value: Any) -> object:
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, dict):
        return {k: _fingerprint(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | deque):
        return [_fingerprint(v) for v in value]
    return value if isinstance(value, bool | int | float | str | None) else id(value)
