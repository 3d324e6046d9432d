"""Two networks that teach each other."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec
from methods.kd import soft_target_loss


class DML(Distiller):
    """Zhang et al. 2018, "Deep Mutual Learning", arXiv:1706.00384, equations 3-6, with two networks.

        student:  CE(student) + T^2 KL( peer || student )
        peer:     CE(peer)    + T^2 KL( student || peer ),    means over the batch

    The peer has the teacher's architecture and is the run's own: it is trained beside the student and thrown away with
    the run, and the teacher that other runs share is not touched. Each takes the other's probabilities as constants.
    The paper updates the two in turn, each from the other's newest weights; here both learn from one forward pass.

    ``start``: the peer begins from fresh weights (``scratch``, the paper) or from the teacher's (``teacher``): then the
    teacher goes on learning, now from its student too, the control for methods such as ReKD that let it be moved.
    T = 1 and weights of 1 are the paper's. The peer's test accuracy is in the curves, as ``test_peer_top1``.
    """

    weights: ClassVar[dict[str, float]] = {"ce": 1.0, "kl": 1.0, "peer_ce": 1.0, "peer_kl": 1.0}

    def __init__(
        self,
        student: TapSpec,
        teacher: TapSpec,
        *,
        start: Literal["scratch", "teacher"] = "scratch",
        temperature: float = 1.0,
    ):
        super().__init__(student, teacher)
        if start not in ("scratch", "teacher"):
            raise ValueError(f"start must be 'scratch' or 'teacher', not {start!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.start, self.temperature = start, temperature

    @property
    def peer(self) -> Literal["scratch", "teacher"]:
        return self.start

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        mine, peers = student.logits, teacher.logits
        return {
            "kl": soft_target_loss(mine, peers.detach(), self.temperature),
            "peer_ce": F.cross_entropy(peers, batch.targets),
            "peer_kl": soft_target_loss(peers, mine.detach(), self.temperature),
        }
