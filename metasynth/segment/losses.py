"""Losses on logits, twice differentiable and usable under forward-mode differentiation."""

from collections.abc import Callable

import torch
from torch import Tensor


def soft_dice_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    include_background: bool = True,
    batch: bool = True,
    squared: bool = False,
    smooth: float = 1e-5,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """One minus the mean soft Dice (Sudre et al. 2017, without class weights).

    With p = softmax(logits) and y the one-hot labels, and sums over the voxels of the batch,

        loss = 1 - mean_k (2 sum(p_k y_k) + smooth) / (sum(p_k) + sum(y_k) + smooth)

    Parameters
    ----------
    logits : Tensor (B, K, *S)
        Unnormalised log-probabilities.
    labels : Tensor (B, *S), integer
        Class indices 0..K-1; a value outside counts as no class (checked where data are read, not here).
    include_background : bool
        Whether class 0 enters the mean.
    batch : bool
        Sum over the voxels of the whole batch (True), or of each image and average over images (False). A
        class that is absent from the sums adds a loss of about 1 and almost no gradient; that is rare in a
        batch and common in a single slice, hence the default.
    squared : bool
        Use sum(p_k^2) + sum(y_k^2) as the denominator (Milletari et al. 2016).
    smooth : float
        Keeps 0/0 defined, in voxels.
    total : callable or None
        Of sums over the part of a batch that this process has, gives those over the batch, differentiably, as
        `metasynth.bilevel.processes.processes.Processes.total` does: with ``batch`` the loss of all parts is then that
        of the whole in every process.

    Returns
    -------
    Tensor ()
        In [0, 1].

    Raises
    ------
    ValueError
        When the shapes do not match.

    Examples
    --------
    >>> labels = torch.tensor([[[0, 1], [1, 1]]])
    >>> perfect = 100.0 * torch.stack([labels == 0, labels == 1], dim=1)
    >>> round(soft_dice_loss(perfect, labels).item(), 6)
    0.0
    >>> undecided = torch.zeros(1, 2, 2, 2)  # p = 1/2: Dice 1/(2+1) and 3/(2+3)
    >>> round(soft_dice_loss(undecided, labels).item(), 4)
    0.5333
    """
    _check(logits, labels)
    first = 0 if include_background else 1
    probabilities = softmax(logits)[:, first:]
    truth = one_hot(labels, logits)[:, first:]
    over = ([0] if batch else []) + list(range(2, logits.ndim))
    overlap = (probabilities * truth).sum(over)
    size = (probabilities * probabilities if squared else probabilities).sum(over) + truth.sum(over)
    if batch and total is not None:
        overlap, size = total(torch.stack([overlap, size]))
    return 1.0 - ((2.0 * overlap + smooth) / (size + smooth)).mean()


def logit_mse_loss(logits: Tensor, labels: Tensor, *, target: float = 5.0) -> Tensor:
    """Mean squared distance of the logits from +target at the true class and -target elsewhere.

    The loss of the authors' public scripts (target 5), not of the paper: mean over voxels and classes of
    (logits - target (2 y - 1))^2 with y the one-hot labels.

    Parameters
    ----------
    logits : Tensor (B, K, *S)
        Unnormalised log-probabilities.
    labels : Tensor (B, *S), integer
        Class indices 0..K-1.
    target : float
        Magnitude of the wanted logits.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ValueError
        When the shapes do not match.

    Examples
    --------
    >>> logit_mse_loss(torch.tensor([[[[5.0]], [[-4.0]]]]), torch.tensor([[[0]]])).item()
    0.5
    """
    _check(logits, labels)
    return (logits - target * (2.0 * one_hot(labels, logits) - 1.0)).square().mean()


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over voxels of -log p of the true class, with p = softmax(logits).

    A proper scoring rule, unlike soft Dice: its expected value is least for the true posterior, so that it also tells a
    segmenter that trained with too much noise from one that trained with the right amount
    (docs/measurements/recovery.md).

    Parameters
    ----------
    logits : Tensor (B, K, *S)
        Unnormalised log-probabilities.
    labels : Tensor (B, *S), integer
        Class indices 0..K-1; a value outside adds nothing.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ValueError
        When the shapes do not match.

    Examples
    --------
    >>> round(cross_entropy_loss(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 1]]])).item(), 4)  # log 2
    0.6931
    """
    _check(logits, labels)
    shifted = logits - logits.detach().amax(dim=1, keepdim=True)
    logarithms = shifted - shifted.exp().sum(dim=1, keepdim=True).log()
    return -(logarithms * one_hot(labels, logits)).sum(dim=1).mean()


def softmax(logits: Tensor) -> Tensor:
    """Class probabilities (B, K, *S) of logits (B, K, *S).

    Written as exp / sum because reverse-mode over forward-mode differentiation of `torch.softmax` fails in
    torch 2.13 (an in-place change of the saved exponential).
    """
    exponentials = torch.exp(logits - logits.detach().amax(dim=1, keepdim=True))
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Labels (B, *S) as indicators (B, K, *S) of the class count and dtype of `like` (B, K, *S)."""
    classes = torch.arange(like.shape[1], device=labels.device).reshape(-1, *[1] * (like.ndim - 2))
    return (labels.unsqueeze(1) == classes).to(like.dtype)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim < 3 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"labels: must have the shape (B, *S) of the logits (B, K, *S), {tuple(logits.shape)}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise ValueError(f"labels: must be of an integer dtype, got {labels.dtype}")
