"""Instance normalisation that is fast in either memory layout."""

import torch
from torch import Tensor, nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with a learned scale and shift: groups of one channel.

    torch's own class leaves the channels-last layout, in which convolutions are faster. Images (B, C, *S) give the same
    shape, in the layout they came in.

    Parameters
    ----------
    channels : int
        C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, input: Tensor) -> Tensor:
        """Each channel of each image with mean 0 and variance 1, scaled and shifted."""
        layout = _CHANNELS_LAST.get(input.ndim)
        if layout is None or input.device.type != "cpu" or input.is_contiguous():
            return super().forward(input)
        # The CPU kernels take ten times as long channels-last as on a contiguous copy: a fifth of a training step.
        return super().forward(input.contiguous()).contiguous(memory_format=layout)
