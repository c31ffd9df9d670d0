"""A Gaussian per class, its noise smoothed within the class (texture).

The means, standard deviations and widths are drawn in `metasynth.synthesis.batched`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from metasynth.synthesis.smoothing import kernels, smooth_noise


def mixture(
    labels: Tensor, means: Tensor, sds: Tensor, fwhms: Tensor, widest: float, generators: Sequence[torch.Generator]
) -> Tensor:
    """Images whose voxels of class k > 0 are m_k + s_k n_k; background is 0.

    n_k is white noise of unit variance, smoothed by a kernel of unit sum: smoothing lowers its variance, which is not
    raised again.

    Parameters
    ----------
    labels : Tensor (B, *S) int64
        Class indices 0..K-1.
    means, sds : Tensor (B, K - 1)
        Of the classes 1..K-1.
    fwhms : Tensor (B, K - 1)
        Widths of the smoothing, in voxels.
    widest : float
        The largest that they can be; 0: noise is left white.
    generators : sequence of torch.Generator
        One per image.

    Returns
    -------
    images : Tensor (B, *S) float32
    """
    shape = labels.shape[1:]
    if not widest:
        white = torch.stack([torch.randn(shape, generator=g, device=g.device) for g in generators])
        mean, sd = (_looked_up(table, labels) for table in (means, sds))
        return mean + sd * white
    weights = kernels(fwhms.flatten(), widest).unflatten(0, fwhms.shape)
    images = torch.zeros(labels.shape, device=labels.device)
    host = labels.cpu().numpy().astype(np.min_scalar_type(means.shape[1]))
    texture = torch.empty(shape, device=labels.device)
    rows = zip(means.tolist(), sds.tolist(), fwhms.tolist(), strict=True)
    for index, (mean, sd, fwhm) in enumerate(rows):
        # The voxels of each class one after the other, so that each is visited once and not once per class.
        order = torch.from_numpy(host[index].argsort(axis=None, kind="stable")).to(labels.device)
        counts = np.bincount(host[index].ravel(), minlength=1 + len(mean)).tolist()
        voxels = order.split(counts)[1:]
        values = []
        for k, window in enumerate(find_objects(host[index], len(mean))):
            if window is not None:
                smooth_noise(weights[index, k], fwhm[k], sd[k], window, shape, generators[index], texture)
                values.append(texture.take(voxels[k]).add_(mean[k]))
        if values:
            images[index].view(-1)[order[counts[0] :]] = torch.cat(values)
    return images


def _looked_up(table: Tensor, labels: Tensor) -> Tensor:
    """Entries of table (B, K - 1) at labels (B, *S); 0 for background."""
    padded = torch.nn.functional.pad(table, (1, 0))
    return padded.gather(1, labels.flatten(1)).reshape(labels.shape)
