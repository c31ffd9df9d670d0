"""Whether two sets of labelled images come from one distribution, seen through statistics of their classes.

Every statistic is one number an image, so that images are independent draws of it. Two sets are compared in its mean
and in its spread, each difference in units of its standard error: between two sets from one distribution it is about
N(0, 1), whatever the statistic. Pooled histograms are compared by their total variation, in units of its standard
deviation over random exchanges of images between the sets.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_VOXELS = 30
_BINS, _RANGE = 40, (-0.25, 1.5)


@dataclass(frozen=True)
class Statistics:
    """``values`` (n, F) by ``names``, NaN where an image has too little of a class; ``histograms`` (n, bins)."""

    names: list[str]
    values: Tensor
    histograms: Tensor


@dataclass(frozen=True)
class Difference:
    """One statistic of two sets: means, spreads, and the differences of both in standard errors."""

    name: str
    means: tuple[float, float]
    spreads: tuple[float, float]
    of_means: float
    of_spreads: float


def statistics_of(images: Tensor, labels: Tensor, classes: int) -> Statistics:
    """Statistics of images (n, 1, H, W) and the label maps (n, H, W) that they show."""
    rows = [_of_image(image[0], shown, classes) for image, shown in zip(images, labels, strict=True)]
    histograms = [
        torch.histc(image[0][shown > 0].clamp(*_RANGE), _BINS, *_RANGE) / max(1, int((shown > 0).sum()))
        for image, shown in zip(images, labels, strict=True)
    ]
    values = torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)
    return Statistics(list(rows[0]), values, torch.stack(histograms).double())


def _of_image(image: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    found = {}
    means, lengths = [], []
    for k in range(1, classes):
        inside = labels == k
        mean = sd = length = math.nan
        if int(inside.sum()) >= _LEAST_VOXELS:
            voxels = image[inside]
            mean, sd = float(voxels.mean()), float(voxels.std().clamp(min=1e-6).log())
            length = _correlation_length(image, inside)
            means.append(mean)
            lengths.append(length)
        found |= {f"class {k}: mean": mean, f"class {k}: log sd": sd, f"class {k}: log length": length}
    found |= _of_interior(image, labels)
    steps = torch.cat([image.diff(dim=axis).flatten() for axis in (0, 1)])
    found["mean over classes"] = _mean(means)
    found["spread over classes"] = float(torch.tensor(means).std()) if len(means) > 1 else math.nan
    found["log length over classes"] = _mean([x for x in lengths if not math.isnan(x)])
    found["log sharpness"] = float((steps.std() / image.std()).clamp(min=1e-6).log())
    return found


def _of_interior(image: Tensor, labels: Tensor) -> dict[str, float]:
    """Texture far from other classes: of voxels whose 5 x 5 neighbours are of their class, less the class's mean."""
    grown = labels.float()[None, None]
    highest, lowest = (sign * F.max_pool2d(sign * grown, 5, 1, 2)[0, 0] for sign in (1, -1))
    inside = (highest == lowest) & (labels > 0)
    residual = torch.zeros_like(image)
    for k in labels[inside].unique():
        own = inside & (labels == k)
        residual[own] = image[own] - image[own].mean()
    sd = math.nan
    if int(inside.sum()) >= _LEAST_VOXELS:
        sd = float(residual[inside].std().clamp(min=1e-6).log())
    return {"interior: log sd": sd, "interior: log length": _correlation_length(residual, inside)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _correlation_length(image: Tensor, inside: Tensor) -> float:
    """log l of the Gaussian covariance exp(-d^2 / (4 l^2)) that neighbours (d = 1) within the class agree with."""
    first, second = [], []
    for axis, size in enumerate(image.shape):
        a, b = (tensor.narrow(axis, 0, size - 1) for tensor in (image, inside))
        c, d = (tensor.narrow(axis, 1, size - 1) for tensor in (image, inside))
        first.append(a[b & d])
        second.append(c[b & d])
    x, y = torch.cat(first).double(), torch.cat(second).double()
    if len(x) < _LEAST_VOXELS or float(x.std()) < 1e-6 or float(y.std()) < 1e-6:
        return math.nan
    correlation = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
    return -0.5 * math.log(-4 * math.log(min(max(correlation, 1e-3), 0.9999)))


def differences(ours: Statistics, theirs: Statistics) -> list[Difference]:
    """Every statistic of two sets, and their histograms (whose means are the total variation and what chance gives)."""
    found = []
    for column, name in enumerate(ours.names):
        sets = [s.values[:, column][s.values[:, column].isfinite()] for s in (ours, theirs)]
        (m, s, m_error, s_error), (n, t, n_error, t_error) = (_moments(values) for values in sets)
        of_means = (m - n) / math.hypot(m_error, n_error)
        of_spreads = (math.log(s) - math.log(t)) / math.hypot(s_error, t_error)
        found.append(Difference(name, (m, n), (s, t), of_means, of_spreads))
    pooled = torch.cat([ours.histograms, theirs.histograms])
    n = len(ours.histograms)
    generator = torch.Generator().manual_seed(0)
    chance = torch.stack([_variation(pooled[torch.randperm(len(pooled), generator=generator)], n) for _ in range(300)])
    variation = float(_variation(pooled, n))
    z = (variation - float(chance.mean())) / float(chance.std())
    return [*found, Difference("histogram", (variation, float(chance.mean())), (0.0, float(chance.std())), z, 0.0)]


def _variation(histograms: Tensor, n: int) -> Tensor:
    return (histograms[:n].mean(0) - histograms[n:].mean(0)).abs().sum() / 2


def _moments(values: Tensor) -> tuple[float, float, float, float]:
    """Mean, standard deviation, and the standard errors of the mean and of the logarithm of the standard deviation."""
    n, mean, sd = len(values), float(values.mean()), float(values.std())
    kurtosis = float(((values - mean) / sd).pow(4).mean())
    return mean, sd, sd / math.sqrt(n), math.sqrt(max(kurtosis - 1, 0.1) / (4 * n))


def largest(found: list[Difference]) -> float:
    """The largest difference in standard errors."""
    return max(max(abs(d.of_means), abs(d.of_spreads)) for d in found)


def table(ours: list[Difference], peers: list[Difference]) -> str:
    """Differences of ours from the peer beside those between two sets of the peer, one line a statistic."""
    lines = [
        f"{'statistic':26}{'ours':>8}{'peer':>8}{'sd ours':>9}{'sd peer':>9}   ours-peer: mean sd   peer-peer: mean sd"
    ]
    for d, p in zip(ours, peers, strict=True):
        lines.append(
            f"{d.name:26}{d.means[0]:8.3f}{d.means[1]:8.3f}{d.spreads[0]:9.3f}{d.spreads[1]:9.3f}"
            f"{d.of_means:18.1f}{d.of_spreads:5.1f}{p.of_means:16.1f}{p.of_spreads:5.1f}"
        )
    return "\n".join(lines)
