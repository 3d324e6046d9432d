"""Disk space of runs in bytes: what they leave, and what they hold while they train."""

from harness.planning.cost.interval import Interval
from harness.planning.cost.past_run import image_counts
from harness.spec import models
from harness.spec.science import Science

_FLOAT = 4
CHECKPOINTS = 3  # two are kept, and the next is written before the older goes
# Bytes of a run's record, log, progress and science: a constant, and more for each epoch.
_RUN, _EPOCH = 40e3, 400.0
_BUFFERS = 1.05  # weights include the statistics of batch norms
_LOGIT_BYTES = 4  # a class and its logit, see training.teacher_logits


def weights_bytes(science: Science, parameters: int | None) -> float | None:
    """Return the bytes of the student that a run leaves, or None where its size is unknown.

    ``parameters`` is the size in similar runs, where there are any.
    """
    if parameters is None:
        if not models.has_model_facts(science.student):
            return None
        parameters = models.model_facts(science.student).params
    return _FLOAT * _BUFFERS * parameters


def bytes_left(science: Science, weights: float) -> Interval:
    """Return the bytes that a run leaves: weights, record, log and progress."""
    texts = _RUN + _EPOCH * science.recipe.last_epoch
    return Interval(weights / _BUFFERS + texts / 2, weights + texts, weights + 2 * texts)


def checkpoint_bytes(weights: float, method_parameters: int, optimizer: str) -> float:
    """Return the bytes of a run's checkpoints: weights and optimiser of student and method, no buffers."""
    copies = 2 if optimizer == "sgd" else 3  # SGD's momenta, DOT's two, or the means of gradients and of their squares
    return CHECKPOINTS * copies * (weights + _FLOAT * method_parameters)


def logits_bytes(science: Science) -> float:
    """Return the bytes of the cached teacher logits that all runs of a seed share; 0 where none are cached."""
    top_k = science.recipe.teacher_top_k
    if not top_k or not science.teacher:
        return 0.0
    classes = min(top_k, science.dataset.info.classes)
    return float(image_counts(science)[0] * (_LOGIT_BYTES * classes + 2))
