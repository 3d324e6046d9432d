"""The fidelity of a student, computed plainly."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def plain_fidelity(student: np.ndarray, teacher: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the values of logits (N, classes), by the names of a record's columns."""
    student, teacher = student.astype(np.float64), teacher.astype(np.float64)
    values = {"agreement": 100 * (student.argmax(1) == teacher.argmax(1)).mean()}
    for t in (1, 4):
        log_p, log_q = log_softmax(teacher / t), log_softmax(student / t)
        values[f"kl_t{t}"] = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    confidences, correct, error = np.exp(log_softmax(student)).max(1), student.argmax(1) == targets, 0.0
    for b in range(15):
        inside = (confidences > b / 15) & (confidences <= (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return values | {"ece": 100 * error}
