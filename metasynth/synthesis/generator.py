"""The interface of generators: label maps in, synthetic images and the labels they show out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class ImageGenerator(ABC):
    """Makes synthetic images from label maps, with no learned weights."""

    @abstractmethod
    def __call__(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthesise one image per label map.

        Parameters
        ----------
        labels : Tensor (B, *S), an integer dtype
            Class indices 0..K-1; 0 is background.
        generator : torch.Generator
            The only source of randomness: equal labels and generator states give equal results, and the
            global random streams are left as they were.

        Returns
        -------
        images : Tensor (B, 1, *S) float32
            Synthetic images, intensities about [0, 1].
        labels : Tensor (B, *S) int64
            The label maps the images show (deformed with them where the generator deforms).

        Raises
        ------
        DataError
            (a ValueError) when the labels are not integers in 0..K-1.
        """
