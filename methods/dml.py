"""DML: deep mutual learning, two networks that teach each other."""

from typing import ClassVar, Literal

from torch import Tensor

from methods.base import Batch, Distiller, Outputs, TapSpec, check_choice, check_positive
from methods.kd import soft_target_loss


class DML(Distiller):
    """Mutual learning: Zhang et al. 2018, "Deep Mutual Learning", arXiv:1706.00384, equations 3-6, with two networks.

        student:  CE(student) + T^2 KL( peer || student )
        peer:     CE(peer)    + T^2 KL( student || peer ),    means over the batch

    The peer has the teacher's architecture and belongs to the run: it is trained together with the student and
    discarded at the end. The teacher that other runs share does not change. Each network sees the other's probabilities
    as constants. The paper updates the two in turn, each from the other's newest weights; here both are updated after
    one forward pass.

    ``start``: the peer starts from fresh weights (``scratch``, as in the paper) or from the teacher's (``teacher``). In
    the second case the teacher continues to learn, also from its student: the control for methods such as ReKD that
    change the teacher's features. T = 1 and weights of 1 are the paper's. The curve ``test_peer_top1`` is the peer's
    test accuracy.
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
        check_choice("start", start, "scratch", "teacher")
        check_positive("temperature", temperature)
        self.peer, self.temperature = start, temperature

    def forward(self, batch: Batch, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        z_student, z_peer = student.logits, teacher.logits
        return {
            "kl": soft_target_loss(z_student, z_peer.detach(), self.temperature),
            "peer_ce": batch.cross_entropy(z_peer),
            "peer_kl": soft_target_loss(z_peer, z_student.detach(), self.temperature),
        }
