"""CUDA streams: each member of a pack, and each pack of a job, trains in one of its own. On a CPU they do nothing."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def raise_stream_limit() -> None:
    """Let 32 streams run at the same time instead of 8. Call this before CUDA starts, which reads the limit."""
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")


class Streams:
    """Named streams that fork from the current one and join it again."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._streams: dict[str, torch.cuda.Stream] = {}
        self._forked: dict[str, torch.cuda.Stream] = {}

    @contextmanager
    def fork(self, name: str, exclusive: bool) -> Iterator[None]:
        """Put work into the stream ``name``, after everything in the current one so far.

        It overlaps with the other streams' work, or, if ``exclusive``, runs after theirs and before what follows.
        """
        if not self._cuda:
            yield
            return
        if exclusive:
            self.join()
        if name not in self._streams:
            self._streams[name] = torch.cuda.Stream()
        stream = self._streams[name]
        stream.wait_stream(torch.cuda.current_stream())
        self._forked[name] = stream
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            if exclusive:
                self.join()

    def join(self) -> None:
        """Let the current stream wait for all that was forked."""
        for stream in self._forked.values():
            torch.cuda.current_stream().wait_stream(stream)
        self._forked = {}


class PackStreams:
    """A stream for each of the packs that train in turn, by seed: for what its members share, so that packs overlap."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._streams: dict[int, torch.cuda.Stream] = {}

    def of(self, seed: int) -> AbstractContextManager[object]:
        """Make a pack's stream the current one. Its first work waits for what all packs share, such as the teacher."""
        if not self._cuda:
            return nullcontext()
        if seed not in self._streams:
            self._streams[seed] = torch.cuda.Stream()
            self._streams[seed].wait_stream(torch.cuda.default_stream())
        return torch.cuda.stream(self._streams[seed])
