"""A mixture of Gaussians per class and the steps of its EM (Van Leemput et al. 1999; Ashburner & Friston 2005).

With y log intensities, pi_k(x) the prior of class k at a voxel, gamma_k its proportion and g the Gaussians of class k,

    p(y | x) = sum_k rho_k(x) sum_{g in k} w_g N(y; mu_g, v_g),   rho_k = gamma_k pi_k / sum_j gamma_j pi_j.

The proportions say how much more or less of a class there is than the prior expects: large ventricles, for one, or
little background in a stripped image.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

_LEAST_VOXELS = 1e-3  # a Gaussian that explains fewer stays as it is
_LEAST_LOG = -80.0  # keeps exponentials of single precision from becoming denormal, which is slow


@final
@dataclass(frozen=True, eq=False)
class Mixture:
    """The Gaussians of all classes.

    Attributes
    ----------
    means, variances, weights : Tensor (G,)
        Of log intensities; the weights of a class add to 1.
    classes : Tensor (G,) int64
        The class of each Gaussian, ascending.
    proportions : Tensor (K,)
        gamma; their mean is 1.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    classes: Tensor
    proportions: Tensor

    def log_densities(self, values: Tensor) -> Tensor:
        """Weighted log-densities log w_g N(y; mu_g, v_g), (G, P), of values (P,)."""
        distance = (values - self.means[:, None]).square() / self.variances[:, None]
        constant = self.weights.log() - 0.5 * (2 * math.pi * self.variances).log()
        return constant[:, None] - 0.5 * distance

    def class_likelihoods(self, values: Tensor) -> Tensor:
        """sum_{g in k} w_g N(y; mu_g, v_g), (K, P), of values (P,); the largest of each value is made 1."""
        each = self.log_densities(values)
        logs = torch.stack([each[self.classes == k].logsumexp(0) for k in range(len(self.proportions))])
        return (logs - logs.amax(0)).clamp(min=_LEAST_LOG).exp()


def initial_mixture(values: Tensor, prior: Tensor, gaussians: tuple[int, ...], least_variance: float) -> Mixture:
    """A mixture from the moments of the values under the prior, whatever the contrast.

    Each value counts for a class by its squared prior, so that the sure voxels decide. The values of a class, so
    weighted, are cut at their quantiles into as many equal parts as the class has Gaussians, and each takes the
    moments of its part.

    Parameters
    ----------
    values : Tensor (P,)
        Log intensities.
    prior : Tensor (K, P)
        Probability of each class at each value's voxel.
    gaussians : tuple of K int
        Gaussians of each class.
    least_variance : float
        Variances are at least this.
    """
    order = values.argsort(stable=True)
    ordered = values[order]
    means, spreads = [], []
    for weight, count in zip(prior[:, order].square(), gaussians, strict=True):
        share = weight.cumsum(0) / weight.sum()
        bounds = torch.searchsorted(share, torch.arange(1, count).to(share) / count).tolist()
        for start, stop in zip([0, *bounds], [*bounds, len(ordered)], strict=True):
            part = slice(start, max(stop, start + 1))
            total = weight[part].sum()
            means.append((weight[part] * ordered[part]).sum() / total)
            spreads.append((weight[part] * (ordered[part] - means[-1]).square()).sum() / total)
    counts = torch.tensor(gaussians, device=values.device)
    classes = torch.arange(len(gaussians), device=values.device).repeat_interleave(counts)
    variances = torch.stack(spreads).clamp(min=least_variance)
    proportions = torch.ones(len(gaussians)).to(values)
    return Mixture(torch.stack(means), variances, 1 / counts[classes].to(values), classes, proportions)


def responsibilities(mixture: Mixture, values: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The E-step: posterior (G, P) of every Gaussian at values (P,) under a prior (K, P), and the log-likelihood ().

    r_g = rho_k(g) w_g N(y; mu_g, v_g) / p(y | x).
    """
    expected = mixture.proportions[:, None] * prior
    logs = (expected / expected.sum(0)).log()
    joint = mixture.log_densities(values) + logs[mixture.classes]
    evidence = joint.logsumexp(0)
    return (joint - evidence).clamp(min=_LEAST_LOG).exp(), evidence.sum(dtype=torch.float64)


def updated(
    mixture: Mixture, values: Tensor, prior: Tensor, posterior: Tensor, least_variance: float, rate: bool
) -> Mixture:
    """The M-step in closed form, given the E-step's posterior (G, P).

    Means, variances and weights maximise EM's bound; a variance is at least `least_variance`, which is where the bound
    is highest if its free maximum lies below. The proportions become

        gamma_k <- sum_x r_k(x) / sum_x (pi_k(x) / sum_j gamma_j pi_j(x))

    if wanted (Ashburner & Friston 2005), which raises the bound: it maximises a tangent below it.
    """
    voxels = posterior.sum(1)
    kept = voxels < _LEAST_VOXELS
    voxels = voxels.clamp(min=_LEAST_VOXELS)
    means = torch.where(kept, mixture.means, posterior @ values / voxels)
    spread = (posterior * (values - means[:, None]).square()).sum(1) / voxels
    of_class = torch.zeros_like(mixture.proportions).index_add(0, mixture.classes, voxels)
    proportions = mixture.proportions
    if rate:
        proportions = of_class / (prior / (mixture.proportions[:, None] * prior).sum(0)).sum(1)
    return replace(
        mixture,
        means=means,
        variances=torch.where(kept, mixture.variances, spread.clamp(min=least_variance)),
        weights=voxels / of_class[mixture.classes],
        proportions=proportions / proportions.mean(),
    )
