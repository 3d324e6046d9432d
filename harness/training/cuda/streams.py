"""Members of a pack side by side on a GPU, each in a CUDA stream of its own. On a CPU there is nothing to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def raise_stream_limit() -> None:
    """Let 32 streams run at the same time instead of 8; to be called before CUDA starts, which reads this."""
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")


class Streams:
    """Forks from the current stream and joins it again."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._forked: dict[str, torch.cuda.Stream] = {}
        self._kept: dict[str, torch.cuda.Stream] = {}

    @contextmanager
    def fork(self, name: str, alone: bool) -> Iterator[None]:
        """What is done inside goes into the stream of ``name``, after all that the current one has been given so far,
        and beside the other streams' work, or ``alone`` after theirs and before what follows."""
        if not self._cuda:
            yield
            return
        if alone:
            self.join()
        if name not in self._kept:
            self._kept[name] = torch.cuda.Stream()
        stream = self._kept[name]
        stream.wait_stream(torch.cuda.current_stream())
        self._forked[name] = stream
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            if alone:
                self.join()

    def join(self) -> None:
        """The current stream goes on after all that was forked."""
        for stream in self._forked.values():
            torch.cuda.current_stream().wait_stream(stream)
        self._forked = {}
