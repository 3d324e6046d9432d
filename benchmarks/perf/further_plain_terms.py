"""The losses of methods from 2021 to 2026 in a few lines of PyTorch, as `plain_terms` has those of earlier ones."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.perf.plain_terms import Plain, directions, maps, soft_targets, sum_of
from methods.base import Batch, Outputs


def mlkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t = student.logits, teacher.logits
    strong_s, strong_t = student.views["strong"].logits, teacher.views["strong"].logits
    p = F.softmax(z_t, dim=1)
    rows = (p.max(1).values <= p.max(1).values.median()).float().mean()
    classes = (p.sum(0) <= p.sum(0).median()).float().mean()
    kd = cc = bc = torch.zeros(())
    for t in (4.0, 3.0, 5.0, 2.0, 6.0):
        weak = soft_targets(z_s, z_t, t)
        kd = kd + rows * weak + (weak if t in (2.0, 6.0) else soft_targets(strong_s, strong_t, t))
        p_s, p_t = F.softmax(z_s / t, dim=1), F.softmax(z_t / t, dim=1)
        cc = cc + classes * ((p_t.T @ p_t - p_s.T @ p_s) ** 2).sum() / z_s.shape[1]
        bc = bc + rows * ((p_t @ p_t.T - p_s @ p_s.T) ** 2).sum() / len(z_s)
    ce = F.cross_entropy(z_s, batch.targets) + F.cross_entropy(strong_s, batch.targets)
    return 0.1 * ce + 0.9 * (kd + cc + bc)


def ctkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    g = method.g.double()
    reversed_g = 2 * g.detach() - g
    temperature = 1 + 20 * torch.sigmoid(reversed_g)
    return 0.9 * soft_targets(student.logits.double(), teacher.logits.double(), temperature).to(student.logits)


def tekap_l(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t = student.logits, teacher.logits
    loss = soft_targets(z_s, z_t, 4.0)
    for e in batch.random.normal(3, z_t.shape[1], dtype=z_t.dtype).unbind(1):
        loss = loss + 0.8 * soft_targets(z_s, 0.9 * z_t + 0.1 * e, 4.0)
    return 0.9 * loss


def rld(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t, target = student.logits, teacher.logits, batch.targets[:, None]
    a, ramp = method.confidence_temperature, batch.ramp(method.warmup)
    log_p = F.log_softmax(z_s / a, dim=1)
    others = log_p.scatter(1, target, -math.inf).logsumexp(1, keepdim=True)  # finite where 1 - p would be 0
    surest = F.softmax(z_t / a, dim=1).max(1, keepdim=True).values
    log_b_s, b_t = torch.cat([log_p.gather(1, target), others], dim=1), torch.cat([surest, 1 - surest], dim=1)
    scd = a**2 * F.kl_div(log_b_s, b_t, reduction="batchmean")
    hidden = z_t >= z_t.gather(1, target)
    mcd = soft_targets(z_s.masked_fill(hidden, -1e9), z_t.masked_fill(hidden, -1e9), 4.0)
    return ramp * scd + 8 * ramp * mcd


def ttm(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    power = F.softmax(teacher.logits, dim=1) ** method.power
    q = power / power.sum(1, keepdim=True)
    return 45 * F.kl_div(F.log_softmax(student.logits, dim=1), q, reduction="batchmean")


def wttm(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    power = F.softmax(teacher.logits, dim=1) ** method.power
    u = power.sum(1, keepdim=True)
    kl = F.kl_div(F.log_softmax(student.logits, dim=1), power / u, reduction="none").sum(1)
    return 4 * (u[:, 0] * kl).mean()


def nkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t, target = student.logits, teacher.logits, batch.targets[:, None]
    own = F.softmax(z_t, dim=1).gather(1, target) * F.log_softmax(z_s, dim=1).gather(1, target)
    is_other = torch.ones_like(z_s, dtype=torch.bool).scatter(1, target, False)
    others_s, others_t = (z[is_other].view(len(z), -1) / method.temperature for z in (z_s, z_t))
    others = (F.softmax(others_t, dim=1) * F.log_softmax(others_s, dim=1)).sum(1).mean()
    return -own.mean() - 1.5 * method.temperature**2 * others


def ofa(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    p = F.softmax(teacher.logits, dim=1)
    is_target = F.one_hot(batch.targets, p.shape[1]).bool()
    weight = torch.where(is_target, (1 + p) ** method.exponent - 1, p**method.exponent)
    heads = zip(method.heads, method.student_taps, strict=True)
    logits = [student.logits, *(head(student.features[tap]) for head, tap in heads)]
    return sum_of(-(weight * F.log_softmax(z, dim=1)).sum(1).mean() for z in logits)


def catkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    (tap_s,), (tap_t,) = method.student_taps, method.teacher_taps
    pooled = (F.adaptive_avg_pool2d(x, 2) for x in (student.features[tap_s], teacher.features[tap_t]))
    return 15 * F.mse_loss(*pooled)


def srrl(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    f_s, f_t = student.features[method.student_tap], teacher.features[method.head.tap]
    if method.head.tap.endswith(".preact"):
        f_s, f_t = F.relu(f_s), F.relu(f_t)
    s, t = method.connect(f_s).mean((2, 3)), f_t.mean((2, 3))
    w = method.classifier_weight
    return F.mse_loss(s, t) + F.mse_loss(F.linear(s, w), F.linear(t, w))


def ickd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def correlations(f: Tensor) -> Tensor:
        f = f.flatten(2)
        return directions(torch.bmm(f, f.transpose(1, 2)), dim=2)

    g_s = correlations(method.embed(student.features[method.student_tap]))
    g_t = correlations(teacher.features[method.teacher_tap])
    return 2.5 * ((g_s - g_t) ** 2).sum() / (g_t.shape[0] * g_t.shape[1])


def wkd_l(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t, target = student.logits, teacher.logits, batch.targets[:, None]
    count, classes = z_s.shape
    own = F.softmax(z_t, dim=1).gather(1, target) * F.log_softmax(z_s, dim=1).gather(1, target)
    is_other = torch.ones_like(z_s, dtype=torch.bool).scatter(1, target, False)
    p, q = (F.softmax(z[is_other].view(count, -1, 1) / method.temperature, dim=1) for z in (z_s, z_t))
    both = is_other[:, :, None] & is_other[:, None]
    cost = (F.relu(method.distance) + 1e-8).expand(count, classes, classes)[both].view(count, classes - 1, -1)
    kernel = torch.exp(-cost / method.regularisation)
    u = torch.full_like(p, 1 / (classes - 1))
    for _ in range(method.iterations):
        v = q / (torch.bmm(kernel.transpose(1, 2), u) + 1e-8)
        u = p / (torch.bmm(kernel, v) + 1e-8)
    flow = u * kernel * v.transpose(1, 2)
    return -own.mean() + 600 * (flow * cost).sum((1, 2)).mean()


def wkd_f(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    s, t = method.connector(student.features[method.student_tap]), teacher.features[method.teacher_tap]
    mean = ((s.mean((2, 3)) - t.mean((2, 3))) ** 2).sum(1).mean()
    deviation_s, deviation_t = (torch.sqrt(x.var((2, 3)) + 1e-5) for x in (s, t))
    return 0.08 * (4 * mean + ((deviation_s - deviation_t) ** 2).sum(1).mean())


def tekap_f(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    rows = method.contrast_rows(batch)
    e = batch.random.normal(teacher.embedding.shape[1], dtype=teacher.embedding.dtype)
    noisy = 0.9 * teacher.embedding + 0.1 * (0.1 * e)
    v_s = F.normalize(method.embed_s.linear(student.embedding), dim=1)
    v_t, v_n = (F.normalize(method.embed_t.linear(x), dim=1) for x in (teacher.embedding, noisy))
    n, noise = len(method.bank_s), method.negatives / len(method.bank_s)

    def scores(v: Tensor, bank: Tensor) -> Tensor:
        return torch.exp((v @ bank.clone().T).gather(1, rows) / method.temperature)

    def contrast(h: Tensor, z: Tensor) -> Tensor:
        positive, negative = (h / z).split([1, method.negatives], dim=1)
        one = torch.log(positive / (positive + noise + 1e-7)).sum()
        return -(one + torch.log(noise / (negative + noise + 1e-7)).sum()) / len(h)

    def remember(bank: Tensor, v: Tensor) -> None:
        new = method.momentum * bank[batch.indices] + (1 - method.momentum) * v.detach()
        bank[batch.indices] = F.normalize(new, dim=1)

    h_s, h_t = scores(v_s, method.bank_t), scores(v_t, method.bank_s)
    if method.log_z.isnan().any():
        method.log_z.copy_(torch.stack([(h.detach().mean() * n).log() for h in (h_s, h_t)]))
    z_s, z_t = method.log_z.exp()
    loss = 2 * contrast(h_s, z_s) + contrast(h_t, z_t)
    remember(method.bank_s, v_s)
    remember(method.bank_t, v_t)
    loss = loss + contrast(scores(v_n, method.bank_s), z_t)
    remember(method.bank_s, v_s)
    remember(method.bank_t, v_n)
    return 0.8 * loss


def mgd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    losses = []
    parts = zip(method.align, method.generate, maps(method, student, teacher), strict=True)
    for align, generate, (f_s, f_t) in parts:
        mask = (batch.random.uniform(1, *f_s.shape[2:]) <= 1 - method.mask_ratio).to(f_s)
        losses.append(F.mse_loss(generate(align(f_s) * mask), f_t, reduction="sum") / len(f_t))
    return 2e-5 * sum_of(losses)


def pkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def normalise(f: Tensor) -> Tensor:
        return (f - f.mean((0, 2, 3), keepdim=True)) / (f.std((0, 2, 3), keepdim=True) + 1e-6)

    return 6 * sum_of(F.mse_loss(normalise(s), normalise(t)) / 2 for s, t in maps(method, student, teacher))


FURTHER_PLAIN: dict[str, Plain] = {
    "catkd": catkd, "ctkd": ctkd, "ickd": ickd, "mgd": mgd, "mlkd": mlkd, "nkd": nkd, "ofa": ofa, "pkd": pkd,
    "rld": rld, "srrl": srrl, "tekap_f": tekap_f, "tekap_l": tekap_l, "ttm": ttm, "wkd_f": wkd_f, "wkd_l": wkd_l,
    "wttm": wttm,
}  # fmt: skip
