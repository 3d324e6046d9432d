"""Properties of ReKD in numbers: five facts about relaxed targets, and the parameters that each term trains."""

import math

import pytest
import torch
from torch import Tensor

from methods.base import Batch, Distiller, Outputs, SampleRandom, TapSpec
from methods.fitnets import FitNets
from methods.rekd import ReKD, Standardise, gaussian_kl, soft_selection

C_S, C_T, SIZE = 3, 8, 4
STUDENT = TapSpec({"last": C_S}, {"last": (SIZE, SIZE)}, C_S, 10)
TEACHER = TapSpec({"last": C_T}, {"last": (SIZE, SIZE)}, C_T, 10)


def rekd(**hyper) -> ReKD:
    torch.manual_seed(0)
    return ReKD(STUDENT, TEACHER, **({"group_size": 2} | hyper)).double()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def run(method: Distiller, f_s: Tensor, f_t: Tensor, seed: int = 0) -> dict[str, Tensor]:
    count, nothing = len(f_s), torch.zeros(0)
    batch = Batch(nothing, nothing, nothing, SampleRandom(seed, count))
    return method(batch, Outputs(nothing, nothing, {"last": f_s}), Outputs(nothing, nothing, {"last": f_t}))


@pytest.mark.parametrize(("selection", "drawn"), [("soft", 5), ("sample", 1), ("mean", 1), ("likelihood", 1)])
def test_only_soft_selection_draws_several_samples(selection, drawn):
    assert rekd(selection=selection, samples=5).regions[0].settings.samples == drawn


def test_fact_1_one_sample_is_no_relaxation():
    """E ||h - z||^2 = ||h - mu||^2 + sum sigma^2, and the student's expected gradient is that of the point target."""
    copies = 20_000  # of one image, so that its noise averages out
    f_s, f_t = (normal(1, c, SIZE, SIZE, seed=c).expand(copies, -1, -1, -1) for c in (C_S, C_T))
    results = {}
    for selection in ("sample", "mean"):
        method = rekd(selection=selection)
        terms = run(method, f_s, f_t)
        terms["select"].backward()
        results[selection] = terms["select"].item(), method.regions[0].project[0].weight.grad
    (sample, sample_gradient), (mean, mean_gradient) = results["sample"], results["mean"]
    sigma = math.sqrt(0.05 * 2.0)  # the initial sigma
    assert sample == pytest.approx(mean + sigma**2, rel=1e-3)
    # One entry's noise: 2 sigma / (8 channels * sqrt(20,000 copies * 16 positions)) = 1.4e-4.
    torch.testing.assert_close(sample_gradient, mean_gradient, atol=1e-3, rtol=0)
    assert mean_gradient.abs().mean() > 0.05


def decodable(latent: Tensor, t: Tensor) -> Tensor:
    """Return R^2 of each of t's channels under the best linear decoder."""
    x, y = (m.movedim(1, 3).flatten(0, 2) for m in (latent, t))
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    residual = y - x @ torch.linalg.lstsq(x, y).solution
    return 1 - residual.var(0) / y.var(0)


@pytest.mark.parametrize("reconstruct", [False, True])
def test_fact_2_without_reconstruction_the_latent_loses_the_teacher(reconstruct):
    """L_KL without L_rec pulls mu to h: only the teacher's channels that the student already knows remain."""
    f_t = normal(64, C_T, SIZE, SIZE)
    f_s = f_t[:, :C_S]  # a student that knows three of them
    method = rekd()
    optimiser = torch.optim.Adam([p for n, p in method.named_parameters() if not n.startswith("project")], lr=0.02)
    for step in range(400):
        terms = run(method, f_s, f_t, seed=step)
        optimiser.zero_grad()
        sum(method.weights[term] * terms[term] for term in ("kl", "reconstruct")[: 1 + reconstruct]).backward()
        optimiser.step()
    with torch.no_grad():
        t = method.regions[0].standardise(f_t)
        unknown = decodable(t + method.regions[0].mu_shift(t) + terms["sigma"] * normal(*t.shape, seed=1), t)[C_S:]
    if reconstruct:
        assert unknown.min() > 0.6 and terms["r2"] > 0.6
    else:
        assert unknown.max() < 0.05
        assert terms["distance"] < 0.02
        assert terms["sigma"].item() == pytest.approx(1.0, abs=0.02)  # prior_std


def scalar_selection(error: float, sigma: float, tau: float, count: int, seed: int = 0) -> float:
    z = sigma * normal(1, count, 1, 1, 1, seed=seed)
    return soft_selection(torch.full((1, 1, 1, 1), error, dtype=torch.float64), z, tau, 1)[0].item()


@pytest.mark.parametrize("tau", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.parametrize("error", [0.0, 1.5])
def test_fact_3_selection_weighs_errors_by_sigma(error, sigma, tau):
    """400,000 samples reach the limit K -> infinity: tau e^2 / (tau + 2 sigma^2) + tau/2 ln(1 + 2 sigma^2 / tau)."""
    exact = tau * error**2 / (tau + 2 * sigma**2) + tau / 2 * math.log(1 + 2 * sigma**2 / tau)
    assert scalar_selection(error, sigma, tau, 400_000) == pytest.approx(exact, rel=0.01)


def test_fact_3_limits_of_tau():
    wide = scalar_selection(1.5, 0.5, tau=1e6, count=400_000)
    assert wide == pytest.approx(1.5**2 + 0.5**2, rel=0.01)  # fact 1
    z = normal(1, 5, 1, 1, 1)
    h = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    nearest = (0.7 - z).square().min().item()
    loss, entropy = soft_selection(h, z, 1e-7, 1)
    assert loss.item() == pytest.approx(nearest, abs=1e-6) and entropy.item() == pytest.approx(0.0, abs=1e-6)


def test_fact_4_select_in_small_groups():
    """The nearest sample is much nearer than the average one in 4 channels, and hardly nearer in 256."""
    h, z = normal(50, 256, 2, 2, seed=1), normal(50, 4, 256, 2, 2, seed=2)
    average = (h[:, None] - z).square().mean()
    gain = {size: 1 - soft_selection(h, z, 1e-6, size)[0] / average for size in (4, 256)}
    assert gain[4] > 0.35
    assert gain[256] < 0.12
    # In 256 channels one sample gets all the weight at any finite tau, so that the selection is not gradual.
    assert soft_selection(h, z, 1.0, 256)[1] < 0.1 < 0.4 < soft_selection(h, z, 4.0, 4)[1]


@pytest.mark.parametrize("selection", ["soft", "sample", "mean"])
def test_fact_5_a_point_target_is_fitnets(selection):
    """With sigma -> 0, one sample and identity encoder and decoder, the loss is FitNets' of the normalised maps.

    FitNets' ReLU is left out, because normalised maps are also negative. Its batch norm is as at the start.
    """
    method = rekd(samples=1, min_std=1e-9, max_std=1e-8, selection=selection, tau=0.37)
    fitnets = FitNets(STUDENT, TEACHER, tap="last").double()
    regressor, project = fitnets.regressor, method.regions[0].project
    regressor.load_state_dict({"conv.weight": project[0].weight}, strict=False)
    regressor.relu = False
    f_s, f_t = normal(5, C_S, SIZE, SIZE, seed=1), normal(5, C_T, SIZE, SIZE, seed=2)
    terms = run(method, f_s, f_t)
    hint = run(fitnets, f_s, Standardise(C_T).double()(f_t))["hint"]
    torch.testing.assert_close(terms["select"], hint, rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(terms["select"], project[0].weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(hint, regressor.conv.weight), rtol=1e-6, atol=1e-9)
    assert terms["reconstruct"] < 1e-12 and terms["r2"] == pytest.approx(1.0)


@pytest.mark.parametrize("selection", ["soft", "sample", "mean"])
def test_training_at_ten_times_the_default_weights_stays_finite(selection):
    """With a scale of its own, h follows mu and mu follows h: both grow until the training diverges.

    Their growth pays most where a teacher's channels are all the same, because then the decoder can average noise away.
    ``likelihood`` is not among these: it divides errors by the variance, so that its curvature has no such bound.
    """
    torch.manual_seed(0)
    images, method = normal(8, 2, SIZE, SIZE), rekd(selection=selection)
    f_t = images[:, :1].expand(-1, C_T, -1, -1)
    student = torch.nn.Sequential(torch.nn.Conv2d(2, C_S, 1), torch.nn.ReLU()).double()
    optimiser = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=0.05, momentum=0.9)
    for step in range(60):
        terms = run(method, 9 * student(images), f_t, seed=step)
        optimiser.zero_grad()
        sum(10 * method.weights[term] * terms[term] for term in ("select", "reconstruct", "kl")).backward()
        optimiser.step()
    assert all(terms[term].abs() < 10 for term in ("select", "reconstruct", "kl")), terms


def test_fact_5_closed_form_kl_agrees_with_monte_carlo():
    mu, log_var, mean, std = normal(6, seed=1), normal(6, seed=2) / 2, normal(6, seed=3), 0.8
    q = torch.distributions.Normal(mu, (log_var / 2).exp())
    p = torch.distributions.Normal(mean, std)
    z = mu + (log_var / 2).exp() * normal(400_000, 6, seed=4)
    monte_carlo = (q.log_prob(z) - p.log_prob(z)).mean().item()
    assert gaussian_kl(mu, log_var, mean, std).item() == pytest.approx(monte_carlo, rel=0.01)


@pytest.mark.parametrize("selection", ["soft", "sample", "likelihood", "mean"])
@pytest.mark.parametrize("prior", ["student", "standard"])
def test_each_term_trains_its_own_parameters(selection, prior):
    """L_sel trains only the student and r; L_rec and L_KL train only the encoder and decoder."""
    method = rekd(selection=selection, prior=prior)
    f_s = normal(5, C_S, SIZE, SIZE, seed=1).requires_grad_()
    terms = run(method, f_s, normal(5, C_T, SIZE, SIZE, seed=2))
    inputs = {"student": f_s, **dict(method.regions[0].named_parameters())}
    trained = {}
    for term in ("select", "reconstruct", "kl"):
        grads = torch.autograd.grad(terms[term], list(inputs.values()), retain_graph=True, allow_unused=True)
        trained[term] = {n.partition(".")[0] for n, g in zip(inputs, grads, strict=True) if g is not None and g.any()}
    assert trained["select"] == {"student", "project"}
    assert trained["reconstruct"] == {"mu_shift", "log_var_shift", "decode_shift"}
    assert trained["kl"] == {"mu_shift", "log_var_shift"}


def test_standard_prior_does_not_depend_on_the_student():
    f_s, f_t = normal(5, C_S, SIZE, SIZE, seed=1), normal(5, C_T, SIZE, SIZE, seed=2)
    for prior, changes in (("student", True), ("standard", False)):
        method = rekd(prior=prior)
        assert (run(method, f_s, f_t)["kl"] != run(method, 2 * f_s, f_t)["kl"]) == changes


def test_likelihood_is_the_posteriors_density():
    method = rekd(selection="likelihood")
    h, mu, log_var = normal(2, C_T, 3, 3), normal(2, C_T, 3, 3, seed=1), normal(2, C_T, 3, 3, seed=2)
    expected = -torch.distributions.Normal(mu, (log_var / 2).exp()).log_prob(h).mean()
    torch.testing.assert_close(method.regions[0].select(h, mu[:, None], mu, log_var)[0], expected)


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4)), ((2, 2), (7, 7)), ((1, 1), (1, 1)), ((7, 5), (4, 3))])
def test_maps_of_different_sizes(sizes):
    terms = run(rekd(), normal(3, C_S, *sizes[0]), normal(3, C_T, *sizes[1], seed=1))
    assert all(value.isfinite() for value in terms.values())


def test_teacher_channels_are_standardised_by_running_moments():
    standardise, maps = Standardise(C_T), 3 + 5 * torch.randn(4, 16, C_T, SIZE, SIZE, generator=generator())
    for batch in maps:
        last = standardise(batch)
    everything = maps.flatten(0, 1)
    mean, std = everything.mean((0, 2, 3)), everything.std((0, 2, 3), correction=0)
    torch.testing.assert_close(last, (maps[-1] - mean[:, None, None]) / std[:, None, None], rtol=1e-4, atol=1e-4)


def test_diagnostics():
    terms = run(rekd(min_std=0.1, max_std=0.4), normal(9, C_S, SIZE, SIZE), normal(9, C_T, SIZE, SIZE, seed=1))
    assert terms["sigma"].item() == pytest.approx(0.2)
    assert terms["r2"].item() == pytest.approx(1 - 0.2**2, abs=0.01)  # the noise is the only error
    assert terms["kl_per_dim"] == terms["kl"]
    assert 0 < terms["selection_entropy"] < 1
    assert run(rekd(samples=1), normal(9, C_S, 4, 4), normal(9, C_T, 4, 4))["selection_entropy"] == 0


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"r2": 0.9, "sigma": 0.3}, []),
        ({"r2": 0.05, "sigma": 0.3}, ["the posterior has collapsed"]),
        ({"r2": 0.9, "sigma": 0.0501}, ["sigma is at its clamp"]),
        ({"r2": 0.0, "sigma": 1.99}, ["the posterior has collapsed", "sigma is at its clamp"]),
    ],
)
def test_a_collapsed_posterior_is_warned_about(means: dict[str, float], expected: list[str]) -> None:
    warnings = rekd().warnings(means)
    assert len(warnings) == len(expected)
    assert all(text.startswith(start) for text, start in zip(warnings, expected, strict=True))
