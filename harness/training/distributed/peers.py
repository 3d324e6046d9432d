"""Proof that the processes at the other ends of gloo's connections belong to this job.

Gloo asks nobody who connects for a secret: whoever is first takes another rank's place. NCCL's connections begin with a
random number that its ranks get from the rendezvous, and it drops others.
"""

import contextlib
import ctypes
import hmac
import os
import socket
import stat
import struct

import torch
import torch.distributed as dist

SO_ATTACH_FILTER = 26


def confirm_peers(secret: bytes) -> None:
    """Exchange with every other rank a code that only a holder of the secret can make.

    A code is for one sender and one receiver, so that nobody can pass on what was sent to him.

    Raises:
        RuntimeError: a code is wrong: somebody else has connected in a rank's place.
    """
    rank, ranks = dist.get_rank(), range(dist.get_world_size())
    mine = _as_tensor([_code(secret, rank, receiver) for receiver in ranks])
    theirs = torch.empty_like(mine)
    dist.all_to_all_single(theirs, mine)
    if not hmac.compare_digest(theirs.numpy().tobytes(), b"".join(_code(secret, sender, rank) for sender in ranks)):
        raise RuntimeError("a process that does not belong to this job has connected to it")


def _code(secret: bytes, sender: int, receiver: int) -> bytes:
    return hmac.digest(secret, f"from {sender} to {receiver}".encode(), "sha256")


def _as_tensor(codes: list[bytes]) -> torch.Tensor:
    return torch.frombuffer(bytearray(b"".join(codes)), dtype=torch.uint8).view(len(codes), -1)


def open_files() -> set[int]:
    """Return the numbers of this process's open files."""
    return {int(name) for name in os.listdir("/proc/self/fd")}


def ignore_strangers(files: set[int]) -> None:
    """Let the kernel drop all that comes to those of the files that are listening sockets; connections remain."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF: return 0, keep no byte
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    for file in files:
        with contextlib.suppress(OSError):  # closed meanwhile, or a kernel without filters
            if stat.S_ISSOCK(os.fstat(file).st_mode):
                with socket.socket(fileno=os.dup(file)) as s:
                    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
