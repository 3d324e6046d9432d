"""Each method's loss as its docstring states it, in a few lines of PyTorch: what `method_terms` measures methods by.

A function gets the method, for its hyper-parameters and trained layers, and a step's inputs; both models' maps have the
same sizes. It returns the weighted sum of the method's terms. ``FIRST`` has the losses of first stages.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Outputs

Plain = Callable[[Any, Batch, Outputs, Outputs], Tensor]


def soft_targets(z_s: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    q = F.log_softmax(z_s / temperature, dim=1)
    return temperature**2 * F.kl_div(q, F.softmax(z_t / temperature, dim=1), reduction="batchmean")


def directions(x: Tensor, dim: int = 1, eps: float = 0.0) -> Tensor:
    """Return x / (|x| + eps) along ``dim``; vectors of zeros stay 0, and have no gradient."""
    length = x.norm(dim=dim, keepdim=True)
    return x / (length.masked_fill(length == 0, 1.0) + eps) * (length > 0)


def maps(method: Any, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    return [(student.features[s], teacher.features[t]) for s, t in method.names]


def kd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    return 0.9 * soft_targets(student.logits, teacher.logits, method.temperature)


def decoupled(z_s: Tensor, z_t: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    is_target = F.one_hot(targets, z_s.shape[1]).bool()
    p_s, p_t = (F.softmax(z / temperature, dim=1)[is_target] for z in (z_s, z_t))
    b_s, b_t = (torch.stack([p, 1 - p], dim=1) for p in (p_s, p_t))
    tckd = temperature**2 * F.kl_div(b_s.log(), b_t, reduction="batchmean")
    others_s, others_t = (z.masked_fill(is_target, -1000.0 * temperature) for z in (z_s, z_t))
    return tckd, soft_targets(others_s, others_t, temperature)


def dkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    tckd, nckd = decoupled(student.logits, teacher.logits, batch.targets, method.temperature)
    return tckd + 8 * nckd


def pearson(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a, b = (x - x.mean(dim, keepdim=True) for x in (a, b))
    return (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + 1e-8)


def dist(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    p_s, p_t = (F.softmax(x.logits / method.temperature, dim=1) for x in (student, teacher))
    inter, intra = (1 - pearson(p_s, p_t, dim).mean() for dim in (1, 0))
    return 2 * method.temperature**2 * (inter + intra)


def lskd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_t = (
        (x.logits - x.logits.mean(1, keepdim=True)) / (x.logits.std(1, keepdim=True) + 1e-7) for x in (student, teacher)
    )
    return 9 * soft_targets(z_s, z_t, 2.0)


def dml(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    z_s, z_p = student.logits, teacher.logits
    return (
        soft_targets(z_s, z_p.detach(), method.temperature)
        + F.cross_entropy(z_p, batch.targets)
        + soft_targets(z_p, z_s.detach(), method.temperature)
    )


def fitnets(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    regressor, f_s = method.regressor, student.features[method.student_tap]
    return 100 * F.mse_loss(F.relu(regressor.bn(regressor.conv(f_s))), teacher.features[method.teacher_tap])


def at(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def attention(f: Tensor) -> Tensor:
        return F.normalize(f.pow(2).mean(1).flatten(1), dim=1)

    return 1000 * sum_of(F.mse_loss(attention(s), attention(t)) for s, t in maps(method, student, teacher))


def sum_of(terms: Any) -> Tensor:
    return torch.stack(list(terms)).sum()


def nst(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.bmm(x, y.transpose(1, 2)).square().mean()

    losses = []
    for f_s, f_t in maps(method, student, teacher):
        s, t = F.normalize(f_s.flatten(2), dim=2), F.normalize(f_t.flatten(2), dim=2)
        losses.append(kernel(t, t) + kernel(s, s) - 2 * kernel(s, t))
    return 50 * sum_of(losses)


def vid(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    losses = []
    for gaussian, (f_s, f_t) in zip(method.gaussians, maps(method, student, teacher), strict=True):
        variance = F.softplus(gaussian.log_scale)[None, :, None, None] + 1e-5
        losses.append(0.5 * ((gaussian.mean(f_s) - f_t) ** 2 / variance + variance.log()).mean())
    return sum_of(losses)


def ofd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    losses = []
    parts = zip(method.connectors, method.margins, maps(method, student, teacher), strict=True)
    for i, (connect, running, (f_s, f_t)) in enumerate(parts):
        negative = f_t < 0
        running.sum_and_count += torch.stack([(f_t * negative).sum((0, 2, 3)), negative.sum((0, 2, 3))])
        margin = (running.sum_and_count[0] / running.sum_and_count[1].clamp(min=1)).to(f_t)
        s, t = connect(f_s), torch.max(f_t, margin[None, :, None, None])
        mask = ((s > t) | (t > 0)).to(s)
        losses.append((F.mse_loss(s, t, reduction="none") * mask).sum() / len(s) / 2 ** (len(method.names) - 1 - i))
    return 0.001 * sum_of(losses)


def reviewkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    pairs = [*maps(method, student, teacher), (student.embedding[..., None, None], teacher.embedding[..., None, None])]
    fused, losses = None, []
    for fusion, (s, t) in reversed(list(zip(method.fusions, pairs, strict=True))):
        x = fusion.enter(s)
        if fused is not None:
            y = F.interpolate(fused, s.shape[2:], mode="nearest")
            weight = torch.sigmoid(fusion.attend(torch.cat([x, y], dim=1)))
            x = x * weight[:, :1] + y * weight[:, 1:]
        fused = x
        h = fusion.leave(x)
        loss, share, whole = F.mse_loss(h, t), 1.0, 1.0
        for size in (4, 2, 1):
            if size < h.shape[2]:
                share /= 2
                loss = loss + share * F.mse_loss(F.adaptive_avg_pool2d(h, size), F.adaptive_avg_pool2d(t, size))
                whole += share
        losses.append(loss / whole)
    return 5 * sum_of(losses)


def simkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    projected = method.project(student.features[method.student_tap])
    f_t = teacher.features[method.head.tap]
    logits = F.linear(projected.mean((2, 3)), method.classifier_weight, method.classifier_bias)
    F.cross_entropy(logits, batch.targets)  # the model's own, which is logged
    return F.mse_loss(projected, f_t.relu() if method.head.tap.endswith(".preact") else f_t)


def rekd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    (region,), ((f_s, f_t),) = method.regions, maps(method, student, teacher)
    settings, group = region.settings, region.settings.group_size
    moments = region.standardise
    with torch.no_grad():
        moments.batches += 1
        moments.mean += (f_t.mean((0, 2, 3)) - moments.mean) / moments.batches
        moments.square += ((f_t**2).mean((0, 2, 3)) - moments.square) / moments.batches
        t = F.batch_norm(f_t, moments.mean, moments.square - moments.mean**2)
    conv, norm = region.project
    h = F.batch_norm(conv(f_s), norm.running_mean, norm.running_var, training=True)
    mu = t + region.mu_shift(t)
    log_var = torch.clamp(sum(settings.log_var_range) / 2 + region.log_var_shift(t), *settings.log_var_range)
    sigma = torch.exp(log_var / 2)
    eps = batch.random.normal(settings.samples, *t.shape[1:]).to(t)
    z = mu[:, None] + sigma[:, None] * eps

    squared = ((h[:, None] - z.detach()) ** 2).unflatten(2, (-1, group)).sum(3)
    select = -settings.tau / group * (torch.logsumexp(-squared / settings.tau, 1) - math.log(settings.samples)).mean()
    reconstruct = F.mse_loss(z[:, 0] + region.decode_shift(z[:, 0]), t)
    kl = (sigma**2 / settings.prior_std**2 + (mu - h.detach()) ** 2 / settings.prior_std**2 - 1 - log_var) / 2
    with torch.no_grad():  # the diagnostics
        sigma.mean(), ((t - t.mean((0, 2, 3), keepdim=True)) ** 2).mean(), ((mu - h) ** 2).mean().sqrt()
        p = torch.softmax(-squared / settings.tau, 1)
        (p * p.log()).sum(1).mean()
    return 10 * select + 0.5 * reconstruct + 0.1 * (kl.mean() + math.log(settings.prior_std))


def sp(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    losses = []
    for f_s, f_t in maps(method, student, teacher):
        s, t = f_s.flatten(1), f_t.flatten(1)
        difference = F.normalize(s @ s.T, dim=1) - F.normalize(t @ t.T, dim=1)
        losses.append((difference**2).sum() / len(s) ** 2)
    return 3000 * sum_of(losses)


def rkd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def relations(x: Tensor) -> tuple[Tensor, Tensor]:
        difference = x[:, None] - x
        distance = difference.norm(dim=2)
        mean = distance[distance > 0].mean()
        direction = directions(difference, dim=2) * (distance > 1e-4 * mean)[:, :, None]
        return distance / mean, torch.bmm(direction, direction.transpose(1, 2))

    (distance_s, angle_s), (distance_t, angle_t) = relations(student.embedding), relations(teacher.embedding)
    return 25 * F.smooth_l1_loss(distance_s, distance_t) + 50 * F.smooth_l1_loss(angle_s, angle_t)


def pkt(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def neighbours(x: Tensor) -> Tensor:
        direction = directions(x, eps=1e-7)
        kernel = (1 + direction @ direction.T) / 2
        return kernel / kernel.sum(1, keepdim=True)

    p_s, p_t = neighbours(student.embedding), neighbours(teacher.embedding)
    return 30000 * (p_t * torch.log((p_t + 1e-7) / (p_s + 1e-7))).mean()


def cc(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    delta = torch.abs(method.embed_s(student.embedding) - method.embed_t(teacher.embedding))
    return 0.02 * (delta[:-1] * delta[1:]).sum(1).mean()


def crd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    rows = method.contrast_rows(batch)
    v_s = F.normalize(method.embed_s.linear(student.embedding), dim=1)
    v_t = F.normalize(method.embed_t.linear(teacher.embedding), dim=1)
    sides = ((v_s, method.bank_t), (v_t, method.bank_s))
    # The backward pass needs the banks as they are now.
    h = [torch.exp((v @ bank.clone().T).gather(1, rows) / method.temperature) for v, bank in sides]
    n, noise = len(method.bank_s), method.negatives / len(method.bank_s)
    if method.log_z.isnan().any():
        method.log_z.copy_(torch.stack([(x.detach().mean() * n).log() for x in h]))
    loss = 0.0
    for x, z in zip(h, method.log_z.exp(), strict=True):
        positive, negative = (x / z).split([1, method.negatives], dim=1)
        one = torch.log(positive / (positive + noise + 1e-7)).sum()
        others = torch.log(noise / (negative + noise + 1e-7)).sum()
        loss = loss - (one + others) / len(x)
    with torch.no_grad():
        for bank, v in ((method.bank_s, v_s), (method.bank_t, v_t)):
            new = method.momentum * bank[batch.indices] + (1 - method.momentum) * v
            bank[batch.indices] = F.normalize(new, dim=1)
    assert isinstance(loss, Tensor)
    return 0.8 * loss


def kdsvd(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    vectors, k = [], method.k
    for f_s, f_t in maps(method, student, teacher):
        m_s, m_t = (f.double().flatten(2).transpose(1, 2) for f in (f_s, f_t))
        (_, _, rows_s), (_, s_t, rows_t) = (torch.linalg.svd(m, full_matrices=False) for m in (m_s, m_t))
        v_t, v_s = rows_t[:, :k].mT, rows_s[:, : k + 3].mT
        projected = m_t @ v_t
        v_t = torch.where((projected * projected.abs()).sum(1, keepdim=True) < 0, -v_t, v_t)
        cosine = (v_s.mT @ v_t).detach()
        best = cosine.abs().argmax(1, keepdim=True)
        v_s = v_s.gather(2, best.expand(-1, v_s.shape[1], -1)) * cosine.gather(1, best).sign()
        scale = F.normalize(s_t[:, :k], dim=1)[:, None]
        vectors.append((v_s * scale, v_t * scale))

    def relation(v: Tensor, w: Tensor) -> Tensor:
        return torch.exp(-((v[:, :, None] - w[:, None]) ** 2) / 8)

    steps = pairwise(vectors)
    losses = [((relation(a_s, b_s) - relation(a_t, b_t)) ** 2).sum() / len(a_s) for (a_s, a_t), (b_s, b_t) in steps]
    return sum_of(losses)


def fgfi(method: Any, batch: Any, student: Any, teacher: Outputs) -> Tensor:
    squared_sum, positions = [], []
    for image, objects in enumerate(batch.objects):
        masks = []
        for tap in method.student_taps:
            anchors = student.anchors[tap]
            overlap = box_iou(anchors.flatten(0, 2), objects.boxes)
            best = overlap.amax(0)
            near = ((overlap > method.threshold * best) & (best > 0)).any(1)
            masks.append(near.unflatten(0, anchors.shape[:3]).any(2))
        adapted = zip(method.adapt, method.names, masks, strict=True)
        squared_sum.append(
            sum_of(
                (mask * (F.relu(adapt(student.features[s][image])) - teacher.features[t][image]) ** 2).sum()
                for adapt, (s, t), mask in adapted
            )
        )
        positions.append(sum_of(mask.sum() for mask in masks))
    return 0.01 * (torch.stack(squared_sum) / (2 * torch.stack(positions))).mean()


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    size = (torch.min(a[:, None, 2:], b[:, 2:]) - torch.max(a[:, None, :2], b[:, :2])).clamp(min=0)
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    intersection = size[:, :, 0] * size[:, :, 1]
    return intersection / (area_a[:, None] + area_b - intersection)


def ft(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def attention(x: Tensor) -> Tensor:
        return F.normalize(x.pow(2).mean(1).flatten(1), dim=1)

    with torch.no_grad():
        factor_t = method.encoder(teacher.features[method.teacher_tap])
    return 200 * F.l1_loss(attention(method.translator(student.features[method.student_tap])), attention(factor_t))


def ft_first(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    f_t = teacher.features[method.teacher_tap]
    return F.mse_loss(method.decoder(method.encoder(f_t)), f_t)


def fsp_first(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    def flows(features: tuple[Tensor, ...]) -> list[Tensor]:
        products = []
        for a, b in pairwise(features):
            if a.shape[2:] != b.shape[2:]:
                a = F.adaptive_avg_pool2d(a, b.shape[2:])
            products.append(torch.bmm(b.flatten(2), a.flatten(2).transpose(1, 2)) / b[0, 0].numel())
        return products

    own, others = zip(*maps(method, student, teacher), strict=True)
    return sum_of(F.mse_loss(s, t) for s, t in zip(flows(own), flows(others), strict=True))


def ab_first(method: Any, batch: Batch, student: Outputs, teacher: Outputs) -> Tensor:
    losses = []
    for i, (connect, (f_s, t)) in enumerate(zip(method.connectors, maps(method, student, teacher), strict=True)):
        s = connect(f_s)
        wrong = torch.where(t > 0, method.margin - s, method.margin + s)
        losses.append((wrong.relu() ** 2).sum() / len(s) / 2 ** (len(method.names) - 1 - i))
    return 3 / 1000 * sum_of(losses)


PLAIN: dict[str, Plain] = {
    "at": at, "cc": cc, "crd": crd, "dist": dist, "dkd": dkd, "dml": dml, "fgfi": fgfi, "fitnets": fitnets, "ft": ft,
    "kd": kd, "kdsvd": kdsvd, "lskd": lskd, "nst": nst, "ofd": ofd, "pkt": pkt, "rekd": rekd, "reviewkd": reviewkd,
    "rkd": rkd, "simkd": simkd, "sp": sp, "vid": vid,
}  # fmt: skip
FIRST: dict[str, Plain] = {"ab": ab_first, "fsp": fsp_first, "ft": ft_first}
