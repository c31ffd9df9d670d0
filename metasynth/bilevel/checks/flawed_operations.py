"""Operations of torch 2.13 whose second derivative is wrong in silence, or missing.

One table, found by differentiating every operation that segmenters use and comparing with central differences in
float64 (tests/bilevel/test_second_derivatives.py, which notices when a release of torch mends or breaks one).
`preflight` reads it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.nn.utils import parametrizations

Mode = Literal["double backward", "forward mode", "differences"]
"""How a strategy takes second derivatives: reverse over reverse, reverse over forward, or first derivatives alone."""

STRATEGIES: Mapping[Mode, str] = {
    "double backward": "Mixed",
    "forward mode": "Forward",
    "differences": "FiniteDifference",
}
"""A strategy of each mode, to be named instead."""


@dataclass(frozen=True)
class Flaw:
    """What is the matter with an operation.

    Attributes
    ----------
    subject : str
        The operation in its user's terms, as the subject of a sentence.
    instead : str
        What to do and still differentiate in the same mode; empty where there is nothing.
    wrong : tuple of Mode
        Where a value comes back, and is wrong.
    missing : tuple of Mode
        Where torch raises. Not listed for forward mode, which says so itself.
    applies : callable
        Whether a node of the graph that has the operation's name is affected; all are by default.
    when_linear : bool
        Whether the derivative in what comes after the operation is affected as well, so that it matters even where θ
        does not enter it.
    output : int or None
        The output whose derivative is affected; None: all.
    """

    subject: str
    instead: str = ""
    wrong: tuple[Mode, ...] = ()
    missing: tuple[Mode, ...] = ()
    applies: Callable[[Any], bool] = lambda node: True
    when_linear: bool = False
    output: int | None = None


def _missing(subject: str, instead: str = "write it out of other operations") -> Flaw:
    return Flaw(subject, instead, missing=("double backward",))


def _wrong_in_forward_mode(subject: str, **options: Any) -> Flaw:
    return Flaw(subject, wrong=("forward mode",), **options)


def _penalty(subject: str, **options: Any) -> Flaw:
    return Flaw(
        f"a gradient (as a penalty has) through {subject}",
        "normalise by nn.GroupNorm or nn.RMSNorm",
        wrong=("double backward",),
        **options,
    )


_ATTENTION = _missing(
    "scaled_dot_product_attention ran a fused kernel, which",
    "call it under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)",
)
_RECURRENT = _missing(
    "a recurrent layer ran a cuDNN kernel, which", "call it under torch.backends.cudnn.flags(enabled=False)"
)
_CHUNKED = "linear_cross_entropy with options=LinearCrossEntropyOptions(...)"

COMPILED = "CompiledFunctionBackward"

FLAWED: Mapping[str, Flaw] = {
    "WeightNormInterface": Flaw(
        "torch._weight_norm",
        "use torch.nn.utils.parametrizations.weight_norm, which is written out",
        wrong=("double backward",),
    ),
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_defaultBackward": Flaw(
        _CHUNKED, "leave the options out", wrong=("double backward",)
    ),
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_no_reduction_defaultBackward": _missing(
        _CHUNKED, "leave the options out"
    ),
    # Its gradient is divided by the frequencies, so it is the derivative of nothing.
    "Embedding": Flaw(
        "embedding with scale_grad_by_freq=True",
        "set scale_grad_by_freq=False",
        wrong=("double backward", "forward mode", "differences"),
        when_linear=True,
        applies=lambda node: node._saved_scale_grad_by_freq,
    ),
    # Where a loss holds a gradient already (a penalty of one), that is differentiated twice more, and the rule for this
    # takes the statistics for constants.
    "NativeLayerNormBackward": _penalty("layer_norm"),
    "NativeBatchNormBackward": _penalty(
        "batch_norm (or instance_norm) in training", applies=lambda node: node._saved_train
    ),
    "CudnnBatchNormBackward": _penalty("batch_norm (or instance_norm) in training"),
    "LinalgSolveEx": _wrong_in_forward_mode("linalg.solve"),
    "LinalgDet": _wrong_in_forward_mode("linalg.det"),
    "LinalgSlogdet": _wrong_in_forward_mode("linalg.slogdet (or logdet)"),
    "LinalgEigh": _wrong_in_forward_mode("linalg.eigh (its eigenvectors)", output=1),
    "LinalgHouseholderProduct": _wrong_in_forward_mode("linalg.householder_product"),
    "CholeskyInverse": _wrong_in_forward_mode("cholesky_inverse"),
    "Cumprod": _wrong_in_forward_mode("cumprod (where there are zeros)"),
    "ScatterReduce": _wrong_in_forward_mode(
        "scatter_reduce of products", applies=lambda node: node._saved_reduce == "prod"
    ),
    "Cdist": _missing(
        "cdist",
        "write it out of other operations (for p=2: compute_mode='use_mm_for_euclid_dist')",
    ),
    "Pdist": _missing("pdist"),
    "CtcLoss": _missing("ctc_loss"),
    "EmbeddingBag": _missing("embedding_bag", "use embedding and a sum, mean or maximum"),
    "Hardsigmoid": _missing("hardsigmoid", "write it as relu6(x + 3) / 6"),
    "MultiMarginLoss": _missing("multi_margin_loss"),
    "MultilabelMarginLoss": _missing("multilabel_margin_loss"),
    "SegmentReduce": _missing("segment_reduce", "use scatter_reduce"),
    COMPILED: _missing("a function compiled by torch.compile", "call it as it was before"),
    "ScaledDotProductFlashAttention": _ATTENTION,
    "ScaledDotProductFlashAttentionForCpu": _ATTENTION,
    "ScaledDotProductEfficientAttention": _ATTENTION,
    "ScaledDotProductCudnnAttention": _ATTENTION,
    "CudnnRnn": _RECURRENT,
    "MiopenRnn": _RECURRENT,
}
"""Node of a graph, as `key_of` calls it -> what is the matter."""


def key_of(name: str) -> str:
    """The name of a node without Backward and number; a node of a Python function, which has no number, keeps all."""
    return re.sub(r"Backward\d+$", "", name)


def takes_vectors_for_constants(module: nn.Module) -> bool:
    """Whether ``module`` is a spectral norm in training: no node of a graph tells it."""
    return isinstance(module, parametrizations._SpectralNorm) and module.training and hasattr(module, "_u")
