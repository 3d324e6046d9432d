"""Methods over pairs: average rank and probability of improvement, with stratified bootstrap intervals.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv:2108.13264,
and its library rliable. A stratum is a pair; the seeds of each pair and method are resampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.reporting.statistics import ERROR, FEWEST, Interval

REPEATS = 2000
_BLOCK = 100  # repeats at a time: all of them, of 10,000 seeds, take much memory
_DECIMALS = 9  # of a mean: smaller parts of a sum differ between processors, and ties must not

Scores = Mapping[Any, Mapping[str, Sequence[float]]]  # pair -> method -> a value per seed


@dataclass(frozen=True)
class Rank:
    """One method over the pairs. 95 % intervals are None where some pair has the method with fewer than three seeds."""

    method: str
    rank: float  # 1 is the best; equal means share a rank
    rank_interval: Interval | None
    better: float | None  # probability that its run beats the baseline's; None for the baseline, or without one
    better_interval: Interval | None


@dataclass(frozen=True)
class Ranking:
    """Methods from the best average rank to the worst."""

    pairs: int
    ranks: tuple[Rank, ...]
    left_out: tuple[str, ...]  # methods that have no result on some pair


def ranking(scores: Scores, baseline: str) -> Ranking | None:
    """Rank the methods that have results on every pair with any; None for fewer than two pairs or methods."""
    pairs = [{m: v for m, v in methods.items() if len(v)} for methods in scores.values()]
    pairs = [methods for methods in pairs if methods]
    names = dict.fromkeys(m for methods in pairs for m in methods)
    ranked = [m for m in names if all(m in methods for methods in pairs)]
    if len(pairs) < 2 or len(ranked) < 2:
        return None
    ranks: Any = 0.0  # (1 + REPEATS, methods): as observed, then resampled; a mean over pairs
    better: dict[str, Any] = dict.fromkeys(ranked, 0.0)
    random = np.random.RandomState(0)  # numpy never changes its stream: tables can be rebuilt byte for byte
    for methods in pairs:
        values = {m: np.asarray(methods[m], float) for m in ranked}
        draws = {m: _draws(random, len(values[m])) for m in ranked}
        means = np.stack([np.round(draws[m] @ values[m] / len(values[m]), _DECIMALS) for m in ranked], axis=1)
        ranks += _ranks(means) / len(pairs)
        if baseline in ranked:
            rival = _Rival(values[baseline], draws[baseline])
            for m in ranked:
                better[m] += rival.beaten_by(values[m], draws[m]) / len(pairs)
    resampled = {m: min(len(methods[m]) for methods in pairs) >= FEWEST for m in ranked}
    all_ranks = []
    for i, m in enumerate(ranked):
        rank = Rank(m, float(ranks[0, i]), _interval(ranks[:, i]) if resampled[m] else None, None, None)
        if baseline in ranked and m != baseline:
            interval = _interval(better[m]) if resampled[m] and resampled[baseline] else None
            rank = replace(rank, better=float(better[m][0]), better_interval=interval)
        all_ranks.append(rank)
    left_out = tuple(m for m in names if m not in ranked)
    return Ranking(len(pairs), tuple(sorted(all_ranks, key=lambda r: r.rank)), left_out)


def _draws(random: Any, n: int) -> Any:
    """Return (1 + REPEATS, n) counts: how often each seed is drawn; the first row draws each once."""
    counts = np.ones((1 + REPEATS, n), np.uint16)
    for start in range(0, REPEATS, _BLOCK):  # the same random numbers as at once
        drawn = random.randint(n, size=(_BLOCK, n))
        drawn += n * np.arange(_BLOCK)[:, None]
        counts[1 + start : 1 + start + _BLOCK] = np.bincount(drawn.ravel(), minlength=_BLOCK * n).reshape(_BLOCK, n)
    return counts


def _ranks(means: Any) -> Any:
    """Return the ranks within each row of (repeats, methods) means, ties averaged."""
    above = (means[:, None, :] > means[:, :, None]).sum(axis=2)
    equal = (means[:, None, :] == means[:, :, None]).sum(axis=2)
    return 1 + above + (equal - 1) / 2


class _Rival:
    """The baseline's runs of a pair, sorted once for the comparison with every method."""

    def __init__(self, values: Any, draws: Any):
        order = np.argsort(values)
        self._sorted = values[order]
        self._below = np.zeros(
            (len(draws), 1 + len(values)), np.int32
        )  # [repeat, i]: how many of the i worst are drawn
        np.cumsum(draws[:, order], axis=1, out=self._below[:, 1:])

    def beaten_by(self, values: Any, draws: Any) -> Any:
        """Return (repeats,) shares of pairs (run, the baseline's run) in which the run is better; ties count half."""
        left, right = (self._sorted.searchsorted(values, side) for side in ("left", "right"))
        wins = np.empty(len(draws))
        for start in range(0, len(draws), _BLOCK):
            block = slice(start, start + _BLOCK)
            below = self._below[block].take(left, axis=1) + self._below[block].take(right, axis=1)
            wins[block] = np.einsum("ij,ij->i", draws[block], below, dtype=np.int64)
        return wins / (2 * len(values) * len(self._sorted))


def _interval(samples: Any) -> Interval:
    """Return the percentile interval of the resampled values."""
    low, high = np.quantile(samples[1:], [ERROR / 2, 1 - ERROR / 2])
    return Interval(float(low), float(high))
