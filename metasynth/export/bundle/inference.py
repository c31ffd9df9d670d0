"""What runs the bundle: each scan through the network, one after the other."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import nibabel as nib
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn


class EvenWindows(Inferer):
    """Images (B, C, *S) in windows that overlap, evenly spaced; what they give is averaged.

    Of images with an axis more than the windows every plane along the first is one.

    Parameters
    ----------
    window : sequence of int
        Their shape, at most S.
    overlap : float
        By how much of their length they overlap at least.
    sigma : float
        Of the Gaussian about their middle that is their weight, as a share of their length.
    """

    def __init__(self, window: Sequence[int], overlap: float, sigma: float) -> None:
        self.window, self.overlap = tuple(window), overlap
        self.weights = torch.ones(())
        for length in window:
            at = (torch.arange(length) - (length - 1) / 2) / (sigma * length)
            self.weights = self.weights.unsqueeze(-1) * torch.exp(-0.5 * at**2)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What the network gives for the images, (B, K, *S)."""
        shape, weights = tuple(inputs.shape[2:]), self.weights.to(inputs.device)
        if len(shape) > len(self.window):
            planes = [self(inputs[:, :, at], network, *args, **kwargs) for at in range(shape[0])]
            return torch.stack(planes, dim=2)
        if shape == self.window:
            return network(inputs, *args, **kwargs)
        total, mean = torch.zeros(shape, device=inputs.device), torch.zeros((), device=inputs.device)
        for corner in product(*(self._starts(n, length) for n, length in zip(shape, self.window, strict=True))):
            place: tuple[Any, ...] = (..., *(slice(at, at + n) for at, n in zip(corner, self.window, strict=True)))
            part = network(inputs[place], *args, **kwargs)
            mean = mean if mean.ndim else mean.expand(*part.shape[:2], *shape).clone()
            mean[place] += weights * part
            total[place] += weights
        return mean / total

    def _starts(self, n: int, length: int) -> list[int]:
        count = 1 + math.ceil((n - length) / (length * (1 - self.overlap)))
        return torch.linspace(0, n - length, count, dtype=torch.float64).round().int().tolist()


class EachView(Inferer):
    """Images (B, C, D, H, W) as planes along several axes; the mean of what is found along each is taken.

    Planes before the first with content, and after the last, are background.

    Parameters
    ----------
    inferer : monai.inferers.Inferer
        How images go through the network as planes along their first axis.
    views : sequence of str
        For each, where the three axes grow to, planes first; those of the images are the first.
    threshold : float
        Content is above it.
    """

    def __init__(self, inferer: Inferer, views: Sequence[str], threshold: float) -> None:
        self.inferer, self.threshold = inferer, threshold
        grow = [nib.orientations.axcodes2ornt(tuple(view)) for view in views]
        self.turns = [nib.orientations.ornt_transform(grow[0], to).astype(int).tolist() for to in grow]

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What the network gives for the images, (B, K, D, H, W)."""
        mean = torch.zeros(())
        for turn in self.turns:
            into, flipped = [axis + 2 for axis, _ in turn], [k for k, (_, way) in enumerate(turn, 2) if way < 0]
            out_of = sorted(range(2, 5), key=lambda k: into[k - 2])
            planes = inputs.flip(flipped).permute(0, 1, *out_of)
            found = self._of_planes(planes, network, *args, **kwargs).permute(0, 1, *into).flip(flipped)
            mean = mean.to(found) + found / len(self.turns)
        return mean

    def _of_planes(self, planes: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        at = (planes > self.threshold).movedim(2, 0).flatten(1).any(dim=1).nonzero()
        first, stop = int(at[0]), int(at[-1]) + 1
        part: Tensor = self.inferer(planes[:, :, first:stop], network, *args, **kwargs)
        found = part.new_zeros(*part.shape[:2], *planes.shape[2:])
        found[:, 0] = 1
        found[:, :, first:stop] = part
        return found


class Evaluator:
    """Segments the scans of a dataset.

    Parameters
    ----------
    dataset : iterable of dict
        With ``image``, (1, D, H, W), as the preprocessing gives them.
    network : torch.nn.Module
        To posteriors.
    inferer : monai.inferers.Inferer
        How images go through it.
    postprocessing : callable
        What is done with an item that has ``pred`` too, the posteriors (K, D, H, W).
    device : torch.device
        Where the network is.
    """

    def __init__(
        self,
        dataset: Iterable[dict[str, Any]],
        network: nn.Module,
        inferer: Callable[..., Any],
        postprocessing: Callable[[dict[str, Any]], Any],
        device: torch.device,
    ) -> None:
        self.dataset, self.network, self.inferer = dataset, network.to(device).eval(), inferer
        self.postprocessing, self.device = postprocessing, device

    @torch.no_grad()
    def run(self) -> int:
        """Segment all of them, and return how many there were."""
        count = 0
        for data in self.dataset:
            image = data["image"]
            found = self.inferer(torch.as_tensor(image).as_subclass(torch.Tensor)[None].to(self.device), self.network)
            pred = MetaTensor(found[0].cpu(), meta=image.meta, applied_operations=image.applied_operations)
            self.postprocessing({**data, "pred": pred})
            count += 1
        return count
