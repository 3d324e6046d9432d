"""What runs leave on the disk, and what they hold while they train, in bytes."""

from harness.planning.cost.interval import Interval
from harness.planning.cost.past_run import image_counts
from harness.spec import models
from harness.spec.science import Science

_FLOAT = 4
CHECKPOINTS = 3  # two are kept, and the next is written before the older goes
# Of a record as a file of its own, and of what a run's log, progress and science come to; and of both for an epoch.
_RUN, _EPOCH = 40e3, 400.0
_BUFFERS = 1.05  # weights hold batch norms' statistics too
_LOGIT_BYTES = 4  # a class and its logit, see training.logits


def weights_bytes(science: Science, parameters: int | None) -> float | None:
    """Of the student that a run leaves. ``parameters``: as like runs had; None where the size is not known."""
    if parameters is None:
        if not models.has_model_facts(science.student):
            return None
        parameters = models.model_facts(science.student).params
    return _FLOAT * _BUFFERS * parameters


def bytes_left(science: Science, weights: float) -> Interval:
    """What a run leaves: its weights, record, log and progress."""
    texts = _RUN + _EPOCH * science.recipe.epochs
    return Interval(weights / _BUFFERS + texts / 2, weights + texts, weights + 2 * texts)


def checkpoint_bytes(weights: float, method_parameters: int) -> float:
    """Of a run in training: weights and momenta of student and method. What a method holds in buffers is not known."""
    return CHECKPOINTS * 2 * (weights + _FLOAT * method_parameters)


def logits_bytes(science: Science) -> float:
    """Of what is kept of its teacher's logits for all runs of its seed; 0 where nothing is."""
    top_k = science.recipe.teacher_top_k
    if not top_k or not science.teacher:
        return 0.0
    kept = min(top_k, science.dataset.info.classes)
    return float(image_counts(science)[0] * (_LOGIT_BYTES * kept + 2))
