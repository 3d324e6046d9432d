"""What methods that look across the whole batch need when it is spread over several processes."""

import torch
import torch.distributed as dist
from torch import Tensor


def gather(rows: Tensor) -> Tensor:
    """The global batch's rows, in rank order; `rows` itself in a single process.

    Every rank must bring the same shape. No gradient flows through the result.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return rows.detach()
    mine = rows.detach().contiguous()
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)
