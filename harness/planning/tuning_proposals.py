"""Proposals of a tuning: the settings to try next, a pure function of a search, a seed and the results before."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.spec.search_space import Dimension, Settings
from harness.store.tuning_log import Trial

if TYPE_CHECKING:
    import optuna

STARTUP = 5  # trials before TPE looks at results; Optuna's 10 would be most of a small budget
MOST_REFUSED = 100  # proposals of a round that are not accepted, after which the sampler is asked no more
Space = Mapping[str, Dimension]
Accept = Callable[[Settings], bool]


def propose(
    space: Space, trials: Sequence[Trial], count: int, sampler: str, seed: int, accept: Accept
) -> list[Settings]:
    """Return the settings to try next; fewer than ``count`` where the search has no more.

    Args:
        trials: those of the method so far, with their results.
        accept: returns whether settings are neither tried nor proposed yet, and such that a sweep file may have them.

    Raises:
        UserError: Optuna is not installed.
    """
    proposed = [] if sampler == "grid" else _sampled(space, trials, count, sampler, seed, accept)
    # A sampler that has its favourites may not come to the last of a few combinations.
    rest = filter(accept, combinations(space))
    return proposed + list(itertools.islice(rest, count - len(proposed)))


def combinations(space: Space) -> Iterator[Settings]:
    """Yield every combination of lists, the last one changing fastest; none where there is a range."""
    if all(dimension.values for dimension in space.values()):
        for values in itertools.product(*(dimension.values for dimension in space.values())):
            yield dict(zip(space, values, strict=True))


def _sampled(
    space: Space, trials: Sequence[Trial], count: int, sampler: str, seed: int, accept: Accept
) -> list[Settings]:
    optuna = _optuna()
    study = optuna.create_study(direction="maximize", sampler=_sampler(sampler, seed))
    # In one order, however the file lists them: the sampler draws one after the other.
    distributions = {key: _distribution(dimension) for key, dimension in sorted(space.items())}
    for trial in trials:
        if all(dimension.holds(trial.settings[key]) for key, dimension in space.items()):
            study.add_trial(_told(trial, space, distributions))
    proposed: list[Settings] = []
    refused = 0
    while len(proposed) < count and refused < MOST_REFUSED:
        asked = study.ask(distributions)
        settings = {key: _value(dimension, asked.params[key]) for key, dimension in space.items()}
        if accept(settings):
            proposed.append(settings)
        else:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            refused += 1
    return proposed


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("optuna is not installed: pip install 'kd-harness[tune]', or use sampler: grid") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(name: str, seed: int) -> "optuna.samplers.BaseSampler":
    samplers = _optuna().samplers
    if name == "random":
        return samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna 4: these two are experimental there
        return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)


def _distribution(dimension: Dimension) -> "optuna.distributions.BaseDistribution":
    distributions = _optuna().distributions
    if dimension.values:  # by position, as Optuna takes no lists
        return distributions.CategoricalDistribution(range(len(dimension.values)))
    if dimension.is_integer:
        return distributions.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _value(dimension: Dimension, param: Any) -> Any:
    return dimension.values[param] if dimension.values else dimension.rounded(param)


def _told(
    trial: Trial, space: Space, distributions: "Mapping[str, optuna.distributions.BaseDistribution]"
) -> "optuna.trial.FrozenTrial":
    """Return a trial as Optuna knows it. One that diverged or failed is worse than all that have a score."""
    known = _optuna().trial
    params = {
        key: dimension.values.index(trial.settings[key]) if dimension.values else trial.settings[key]
        for key, dimension in space.items()
    }
    result: dict[str, Any] = {"state": known.TrialState.PRUNED}
    if trial.value is not None:
        is_done = trial.state == "done"
        result = {"value": trial.value} if is_done else result | {"intermediate_values": {trial.epochs: trial.value}}
    return known.create_trial(params=params, distributions=distributions, **result)
