"""Operations that segmenters are made of, each as a function of a few float64 tensors.

One list, and so longer than other modules.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as f
from torch.nn.attention import SDPBackend, sdpa_kernel


class Operation(NamedTuple):
    """A function of tensors that require a gradient, and where to take its derivatives."""

    function: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    module: nn.Module | None = None


def real(*shape: int, seed: int = 0) -> Tensor:
    """Normal, without ties, and none within 0.01 of the kinks at -3, -1, -0.5, 0, 0.5, 1, 3 and 6."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kinks = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0], dtype=torch.float64)
    offset = x.unsqueeze(-1) - kinks
    nearest = offset.gather(-1, offset.abs().argmin(-1, keepdim=True)).squeeze(-1)
    return torch.where(nearest.abs() < 0.01, x + 0.02, x).requires_grad_()


def positive(*shape: int, seed: int = 0) -> Tensor:
    """In 0.2..0.9."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.2 + 0.7 * x).requires_grad_()


def of(function: Callable[..., Any], *shapes: tuple[int, ...], **options: Any) -> Operation:
    """A function of as many normal tensors as there are shapes."""
    return Operation(lambda *x: function(*x, **options), tuple(real(*s, seed=i) for i, s in enumerate(shapes)))


def layer(module: nn.Module, *shapes: tuple[int, ...], **options: Any) -> Operation:
    """A module as a function of its inputs and parameters."""

    def sign(p: Tensor) -> Tensor:
        return torch.where(p.detach() < 0, -1.0, 1.0)

    module = module.double()
    names = [name for name, _ in module.named_parameters()]
    generator = torch.Generator().manual_seed(1)
    values = tuple(
        # Away from zero: orthogonal by householder cuts what is below one on the diagonal to zero.
        (p.detach() + sign(p) * 0.4 * torch.rand(p.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for p in module.parameters()
    )
    buffers = {name: value.detach().clone() for name, value in module.named_buffers()}

    def run(*given: Tensor) -> Any:
        torch.manual_seed(0)
        x, parameters = given[: len(shapes)], dict(zip(names, given[len(shapes) :], strict=True))
        copies = {name: value.clone() for name, value in buffers.items()}
        return functional_call(module, {**parameters, **copies}, x, options)

    return Operation(run, (*(real(*s, seed=i) for i, s in enumerate(shapes)), *values), module)


def _indices(*shape: int, below: int, seed: int = 0) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def _seeded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that draws the same numbers every time."""

    def run(*given: Tensor, **options: Any) -> Any:
        torch.manual_seed(0)
        return function(*given, **options)

    return run


def _under(backend: SDPBackend) -> Callable[..., Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        with sdpa_kernel(backend):
            return f.scaled_dot_product_attention(q, k, v, **options)

    return run


def _definite(x: Tensor) -> Tensor:
    return x @ x.mT + 2 * torch.eye(x.shape[-1], dtype=x.dtype)


def _grid(x: Tensor, flow: Tensor, **options: Any) -> Tensor:
    """Sampling within half a voxel of the voxels, on neither side of their borders."""
    n = flow.shape[0]
    axes = len(x.shape) - 2
    theta = torch.eye(axes, axes + 1, dtype=x.dtype).expand(n, -1, -1)
    base = f.affine_grid(theta, list(x.shape), align_corners=False)
    return f.grid_sample(x, 0.9 * base + 0.05 * flow.tanh(), align_corners=False, **options)


def _slope(x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient in x of a sum over what comes of it."""
    return torch.autograd.grad(of(x).sin().sum(), x, create_graph=True)[0]


def _constrained(module: nn.Module, constrain: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return constrain(module, **options)


_DEEP = {1: (2, 3, 6), 2: (2, 3, 5, 4), 3: (1, 2, 4, 3, 4)}


def _convolutions() -> Iterator[tuple[str, Operation]]:
    for n in (1, 2, 3):
        small, conv, transposed = [4] * n, getattr(f, f"conv{n}d"), getattr(f, f"conv_transpose{n}d")
        yield f"conv{n}d", of(conv, (1, 2, *small), (2, 2, *[3] * n), (2,), padding=1, stride=2)
        yield f"conv{n}d, grouped and dilated", of(conv, (1, 2, *small), (2, 1, *[2] * n), groups=2, dilation=2)
        yield f"conv{n}d, same", of(conv, (1, 1, *small), (1, 1, *[3] * n), padding="same")
        yield f"conv_transpose{n}d", of(transposed, (1, 2, *[2] * n), (2, 1, *[2] * n), (1,), stride=2)
        yield (
            f"conv_transpose{n}d, with output padding",
            of(transposed, (1, 1, *[2] * n), (1, 1, *[3] * n), stride=2, padding=1, output_padding=1),
        )
        yield f"unfold and fold in {n}d", of(lambda x: x.unfold(-1, 2, 1), (1, 2, *small))
    yield "linear", of(f.linear, (3, 4), (2, 4), (2,))
    yield "bilinear", of(f.bilinear, (3, 2), (3, 2), (2, 2, 2), (2,))
    yield "unfold", of(f.unfold, (1, 2, 4, 4), kernel_size=2, stride=1)
    yield "fold", of(f.fold, (1, 8, 4), output_size=(4, 4), kernel_size=2, stride=2)
    yield "conv_tbc", of(torch.conv_tbc, (4, 2, 2), (3, 2, 2), (2,))


def _normalisations() -> Iterator[tuple[str, Operation]]:
    for n, shape in _DEEP.items():
        batch, instance = getattr(nn, f"BatchNorm{n}d"), getattr(nn, f"InstanceNorm{n}d")
        c = shape[1]
        yield f"BatchNorm{n}d", layer(batch(c), shape)
        yield f"BatchNorm{n}d, in eval mode", layer(batch(c).eval(), shape)
        yield f"BatchNorm{n}d, without weights or running statistics", layer(batch(c, 1e-3, None, False, False), shape)
        yield f"InstanceNorm{n}d", layer(instance(c, affine=True), shape)
        yield f"InstanceNorm{n}d, without weights", layer(instance(c), shape)
        running = instance(c, affine=True, track_running_stats=True)
        yield f"InstanceNorm{n}d, with running statistics", layer(running, shape)
        yield f"InstanceNorm{n}d, in eval mode", layer(instance(c, affine=True, track_running_stats=True).eval(), shape)
    yield "GroupNorm", layer(nn.GroupNorm(2, 4), (2, 4, 3, 2))
    yield "GroupNorm, one group", layer(nn.GroupNorm(1, 4), (2, 4, 3))
    yield "GroupNorm, without weights", layer(nn.GroupNorm(2, 4, affine=False), (2, 4, 3))
    yield "LayerNorm", layer(nn.LayerNorm((3, 4)), (2, 3, 4))
    yield "LayerNorm, without weights", layer(nn.LayerNorm(4, elementwise_affine=False), (2, 3, 4))
    yield "LayerNorm, without bias", layer(nn.LayerNorm(4, bias=False), (2, 3, 4))
    yield "RMSNorm", layer(nn.RMSNorm(4), (2, 3, 4))
    yield "RMSNorm, without weights", layer(nn.RMSNorm(4, elementwise_affine=False), (2, 3, 4))
    yield "LocalResponseNorm", layer(nn.LocalResponseNorm(2), (2, 3, 4))
    yield "normalize", of(f.normalize, (3, 4))
    yield "a gradient through layer_norm", of(_slope, (3, 4), of=partial(f.layer_norm, normalized_shape=(4,)))
    yield "a gradient through rms_norm", of(_slope, (3, 4), of=partial(f.rms_norm, normalized_shape=(4,)))
    yield "a gradient through group_norm", of(_slope, (2, 4, 3), of=partial(f.group_norm, num_groups=2))
    yield "a gradient through instance_norm", of(_slope, (2, 2, 4), of=f.instance_norm)
    statistics = {"running_mean": torch.zeros(4).double(), "running_var": torch.ones(4).double()}
    yield "a gradient through batch_norm", of(_slope, (3, 4), of=partial(f.batch_norm, training=True, **statistics))
    yield "a gradient through batch_norm, in eval mode", of(_slope, (3, 4), of=partial(f.batch_norm, **statistics))
    for p in (1, 1.5, 2, 3, float("inf")):
        yield f"vector_norm {p}", of(torch.linalg.vector_norm, (3, 4), ord=p, dim=1)
    yield "renorm", of(torch.renorm, (3, 4), p=2, dim=0, maxnorm=1.0)
    yield "cosine_similarity", of(f.cosine_similarity, (3, 4), (3, 4))
    yield "weight_norm", of(torch._weight_norm, (4, 3), (4, 1), dim=0)
    yield "weight_norm, over the last axis", of(torch._weight_norm, (4, 3), (1, 3), dim=1)
    yield "weight_norm, over another axis", of(torch._weight_norm, (2, 3, 2), (1, 3, 1), dim=1)
    yield "weight_norm, as a whole", of(torch._weight_norm, (4, 3), (), dim=-1)
    parametrizations = nn.utils.parametrizations
    converging = _constrained(nn.Linear(4, 3), parametrizations.spectral_norm, n_power_iterations=200)
    yield "spectral_norm", layer(converging, (2, 4))
    yield (
        "spectral_norm, in eval mode",
        layer(_constrained(nn.Linear(4, 3), parametrizations.spectral_norm).eval(), (2, 4)),
    )
    for kind in ("matrix_exp", "cayley", "householder"):
        for outputs in (3, 2):
            made = _constrained(nn.Linear(3, outputs), parametrizations.orthogonal, orthogonal_map=kind)
            yield f"orthogonal by {kind}, {outputs} by 3", layer(made, (2, 3))


def _poolings() -> Iterator[tuple[str, Operation]]:
    for n, shape in _DEEP.items():
        for kind in ("max_pool", "avg_pool"):
            yield f"{kind}{n}d", of(getattr(f, f"{kind}{n}d"), shape, kernel_size=2, stride=1)
            yield f"adaptive_{kind}{n}d", of(getattr(f, f"adaptive_{kind}{n}d"), shape, output_size=2)
        yield (
            f"lp_pool{n}d",
            Operation(partial(getattr(f, f"lp_pool{n}d"), norm_type=2.0, kernel_size=2), (positive(*shape),)),
        )
        yield f"max_unpool{n}d", of(_unpooled, shape, axes=n)
        yield f"AvgPool{n}d with padding", layer(getattr(nn, f"AvgPool{n}d")(2, 1, 1, count_include_pad=False), shape)
    for n in (2, 3):
        pool = getattr(f, f"fractional_max_pool{n}d")
        yield f"fractional_max_pool{n}d", of(_seeded(pool), (1, 2, *[4] * n), kernel_size=2, output_size=2)
    yield "amax", of(torch.amax, (3, 4), dim=1)
    yield "max over an axis", of(lambda x: x.max(dim=1).values, (3, 4))
    yield "median", of(lambda x: x.median(dim=1).values, (3, 5))
    yield "quantile", of(torch.quantile, (3, 5), q=0.3, dim=1)
    yield "topk", of(lambda x: x.topk(2, dim=1).values, (3, 4))
    yield "kthvalue", of(lambda x: x.kthvalue(2, dim=1).values, (3, 4))
    yield "sort", of(lambda x: x.sort(dim=1).values, (3, 4))
    yield "logcumsumexp", of(torch.logcumsumexp, (3, 4), dim=1)
    yield "cumsum", of(torch.cumsum, (3, 4), dim=1)
    yield "cumprod", Operation(partial(torch.cumprod, dim=1), (_with_zeros(3, 4),))
    yield "prod, with zeros", Operation(partial(torch.prod, dim=1), (_with_zeros(3, 4),))
    yield "cummax", of(lambda x: x.cummax(dim=1).values, (3, 4))
    yield "prod", of(torch.prod, (3, 4), dim=1)
    yield "var", of(torch.var, (3, 4), dim=1)
    yield "std", of(torch.std, (3, 4), dim=1)
    yield "mean", of(torch.mean, (3, 4), dim=1)


def _with_zeros(*shape: int) -> Tensor:
    x = real(*shape).detach().clone()
    x[:, 1] = 0
    return x.requires_grad_()


def _unpooled(x: Tensor, axes: int) -> Tensor:
    pooled, indices = getattr(f, f"max_pool{axes}d")(x, 2, return_indices=True)
    return getattr(f, f"max_unpool{axes}d")(pooled, indices, 2, output_size=x.shape[2:])


def _resampling() -> Iterator[tuple[str, Operation]]:
    for n, modes in {1: ("nearest", "linear"), 2: ("bilinear", "bicubic"), 3: ("nearest", "trilinear")}.items():
        small = {1: (1, 2, 4), 2: (1, 1, 3, 4), 3: (1, 1, 2, 3, 2)}[n]
        for mode in (*modes, "nearest-exact", "area"):
            yield f"interpolate {mode} in {n}d", of(f.interpolate, small, scale_factor=2.0, mode=mode)
            yield f"interpolate {mode} down in {n}d", of(f.interpolate, small, size=[2] * n, mode=mode)
            if "linear" in mode or mode == "bicubic":
                yield (
                    f"interpolate {mode}, corners aligned, in {n}d",
                    of(f.interpolate, small, scale_factor=2.0, mode=mode, align_corners=True),
                )
            if mode in ("bilinear", "bicubic"):
                yield (
                    f"interpolate {mode} with antialias",
                    of(f.interpolate, small, size=[2, 2], mode=mode, antialias=True),
                )
    yield "interpolate nearest in 2d", of(f.interpolate, (1, 1, 2, 3), scale_factor=2.0, mode="nearest")
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            yield (
                f"grid_sample {mode}, {padding}",
                of(_grid, (1, 2, 3, 3), (1, 3, 3, 2), mode=mode, padding_mode=padding),
            )
    for mode in ("bilinear", "nearest"):
        for padding in ("zeros", "border", "reflection"):
            yield (
                f"grid_sample {mode} in 3d, {padding}",
                of(_grid, (1, 1, 2, 3, 2), (1, 2, 3, 2, 3), mode=mode, padding_mode=padding),
            )
    yield "affine_grid", of(f.affine_grid, (1, 2, 3), size=[1, 1, 3, 2], align_corners=False)
    yield "affine_grid in 3d", of(f.affine_grid, (1, 3, 4), size=[1, 1, 2, 3, 2], align_corners=True)
    yield "pixel_shuffle", of(f.pixel_shuffle, (1, 4, 2, 2), upscale_factor=2)
    yield "pixel_unshuffle", of(f.pixel_unshuffle, (1, 1, 4, 4), downscale_factor=2)
    yield "channel_shuffle", of(f.channel_shuffle, (1, 4, 2), groups=2)
    for mode in ("constant", "reflect", "replicate", "circular"):
        for n in (1, 2, 3):
            yield f"pad {mode} in {n}d", of(f.pad, _DEEP[n], pad=[1] * 2 * n, mode=mode)
    yield "fft", of(lambda x: torch.fft.rfftn(x).abs(), (3, 4))
    yield "roll", of(torch.roll, (3, 4), shifts=1, dims=0)
    yield "gather", of(torch.gather, (3, 4), dim=1, index=_indices(3, 2, below=4))
    yield "scatter_add", of(lambda x, y: x.scatter_add(1, _indices(3, 2, below=4), y), (3, 4), (3, 2))
    yield (
        "scatter_reduce amax",
        of(lambda x, y: x.scatter_reduce(1, _indices(3, 2, below=4), y, "amax"), (3, 4), (3, 2)),
    )
    yield (
        "scatter_reduce mean",
        of(lambda x, y: x.scatter_reduce(1, _indices(3, 2, below=4), y, "mean"), (3, 4), (3, 2)),
    )
    yield (
        "scatter_reduce prod",
        of(lambda x, y: x.scatter_reduce(1, _indices(3, 2, below=4), y, "prod"), (3, 4), (3, 2)),
    )
    yield "index_add", of(lambda x, y: x.index_add(0, torch.tensor([0, 0]), y), (3, 4), (2, 4))
    yield "index", of(lambda x: x[_indices(5, below=3)], (3, 4))
    yield "segment_reduce", of(lambda x: torch.segment_reduce(x, "mean", lengths=torch.tensor([1, 2])), (3, 2))
    yield "where", of(lambda x, y: torch.where(x > 0, x * y, y), (3, 4), (3, 4))
    yield "masked_fill", of(lambda x: x.square().masked_fill(x > 0, 2.0), (3, 4))
    yield "bucketize by comparison", of(lambda x: x.clamp(-0.5, 0.5), (3, 4))
    yield "trapezoid", of(torch.trapezoid, (3, 4), (3, 4))


_ACTIVATIONS = (
    *(
        "relu",
        "relu6",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "softsign",
        "softshrink",
        "hardshrink",
    ),
    *("hardtanh", "hardsigmoid", "hardswish", "leaky_relu", "logsigmoid", "sigmoid", "tanh", "tanhshrink", "glu"),
)
_POINTWISE = (
    "exp",
    "expm1",
    "sin",
    "cos",
    "atan",
    "sinc",
    "erf",
    "square",
    "abs",
    "sign",
    "cosh",
    "asinh",
    "logit",
    "log",
    "log1p",
)
_POINTWISE_POSITIVE = ("sqrt", "rsqrt", "lgamma", "digamma", "erfinv", "reciprocal", "asin", "acos", "atanh", "i0")


def _activations() -> Iterator[tuple[str, Operation]]:
    for name in _ACTIVATIONS:
        yield name, of(getattr(f, name), (3, 4))
    for name in ("gelu", "softplus"):
        options = {"approximate": "tanh"} if name == "gelu" else {"beta": 3, "threshold": 1}
        yield f"{name} with options", of(getattr(f, name), (3, 4), **options)
    yield "threshold", of(f.threshold, (3, 4), threshold=0.1, value=0.3)
    yield "prelu", of(f.prelu, (2, 3, 2), (3,))
    yield "rrelu", of(_seeded(f.rrelu), (3, 4), training=True)
    yield "rrelu, in eval mode", of(f.rrelu, (3, 4))
    for name in ("softmax", "log_softmax", "softmin"):
        yield name, of(getattr(f, name), (3, 4), dim=1)
    yield "gumbel_softmax", of(_seeded(f.gumbel_softmax), (3, 4))
    yield "logsumexp", of(torch.logsumexp, (3, 4), dim=1)
    yield "logaddexp", of(torch.logaddexp, (3, 4), (3, 4))
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
        yield (
            name,
            of(
                _seeded(getattr(f, name)),
                (1, 2, 3, 2, 2)[: 3 + int(name[-2]) - 1] if name[-1] == "d" else (3, 4),
                training=True,
            ),
        )
    for name in _POINTWISE + _POINTWISE_POSITIVE:
        yield name, Operation(getattr(torch, name), (positive(3, 4),))
    for name in ("maximum", "minimum", "atan2", "hypot", "mul", "div", "xlogy", "fmod", "remainder"):
        yield name, Operation(getattr(torch, name), (positive(3, 4), positive(3, 4, seed=1)))
    yield "pow", Operation(torch.pow, (positive(3, 4), positive(3, 4, seed=1)))
    yield "lerp", of(torch.lerp, (3, 4), (3, 4), (3, 4))
    yield "addcmul", of(torch.addcmul, (3, 4), (3, 4), (3, 4))
    yield "addcdiv", Operation(torch.addcdiv, (positive(3, 4), positive(3, 4, seed=1), positive(3, 4, seed=2)))
    yield "polygamma", Operation(lambda x: torch.polygamma(1, x), (positive(3, 4),))
    yield "bessel", Operation(torch.special.i1e, (positive(3, 4),))


def _attention_and_recurrence() -> Iterator[tuple[str, Operation]]:
    qkv = ((1, 2, 3, 2),) * 3
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        name = backend.name.lower().removesuffix("_attention")
        yield f"scaled_dot_product_attention, {name}", of(_under(backend), *qkv)
        yield f"scaled_dot_product_attention, {name}, causal", of(_under(backend), *qkv, is_causal=True)
    yield "MultiheadAttention", layer(nn.MultiheadAttention(4, 2), (3, 1, 4), (3, 1, 4), (3, 1, 4), need_weights=True)
    yield (
        "MultiheadAttention, without weights",
        layer(nn.MultiheadAttention(4, 2), (3, 1, 4), (3, 1, 4), (3, 1, 4), need_weights=False),
    )
    yield "TransformerEncoderLayer", layer(nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0), (3, 1, 4))
    yield "GRU", layer(nn.GRU(2, 2, 2, bidirectional=True), (3, 1, 2))
    yield "LSTM", layer(nn.LSTM(2, 2, 1), (3, 1, 2))
    yield "LSTM, two layers, projected", layer(nn.LSTM(2, 3, 2, proj_size=2), (3, 1, 2))
    yield "RNN", layer(nn.RNN(2, 2), (3, 1, 2))
    yield "RNN with relu", layer(nn.RNN(2, 2, nonlinearity="relu"), (3, 1, 2))
    yield "GRUCell", layer(nn.GRUCell(2, 2), (1, 2))
    yield "LSTMCell", layer(nn.LSTMCell(2, 2), (1, 2))
    yield "embedding", of(lambda w: f.embedding(_indices(4, below=3), w), (3, 2))
    yield (
        "embedding, gradient scaled by frequency",
        of(lambda w: f.embedding(torch.tensor([0, 1, 1]), w, scale_grad_by_freq=True), (3, 2)),
    )
    for mode in ("sum", "mean", "max"):
        yield (
            f"embedding_bag {mode}",
            of(lambda w, mode=mode: f.embedding_bag(_indices(2, 2, below=3), w, mode=mode), (3, 2)),
        )
    yield "einsum", of(lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), (2, 3), (3, 2), (2, 2))


def _losses() -> Iterator[tuple[str, Operation]]:
    target, classes, signs = (
        positive(3, 4, seed=5).detach(),
        _indices(3, below=4),
        torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64),
    )
    weight = positive(4, seed=6).detach()
    for reduction in ("mean", "sum", "none"):
        yield f"cross_entropy {reduction}", of(f.cross_entropy, (3, 4), target=classes, reduction=reduction)
        yield (
            f"binary_cross_entropy {reduction}",
            Operation(lambda x, r=reduction: f.binary_cross_entropy(x, target, reduction=r), (positive(3, 4),)),
        )
    yield (
        "cross_entropy, weighted, smoothed",
        of(f.cross_entropy, (3, 4), target=classes, weight=weight, label_smoothing=0.1),
    )
    yield (
        "cross_entropy, of voxels, some ignored",
        of(f.cross_entropy, (2, 3, 4), target=_indices(2, 4, below=3), ignore_index=1),
    )
    yield "cross_entropy, of probabilities", of(lambda x, y: f.cross_entropy(x, y.softmax(1)), (3, 4), (3, 4))
    yield "binary_cross_entropy in both", Operation(f.binary_cross_entropy, (positive(3, 4), positive(3, 4, seed=1)))
    yield (
        "binary_cross_entropy_with_logits",
        of(lambda x, y: f.binary_cross_entropy_with_logits(x, y.sigmoid(), pos_weight=weight), (3, 4), (3, 4)),
    )
    yield "nll_loss", of(f.nll_loss, (3, 4), target=classes, weight=weight)
    yield "nll_loss of voxels", of(f.nll_loss, (2, 3, 2, 2), target=_indices(2, 2, 2, below=3))
    yield "linear_cross_entropy", of(lambda x, w: f.linear_cross_entropy(x, w, classes), (3, 2), (4, 2))
    for reduction in ("mean", "sum", "none"):
        yield f"linear_cross_entropy in chunks, {reduction}", of(partial(_chunked, classes, reduction), (3, 2), (4, 2))
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        yield name, of(getattr(f, name), (3, 4), (3, 4))
    yield "kl_div", of(lambda x, y: f.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"), (3, 4), (3, 4))
    yield (
        "kl_div of logarithms",
        of(lambda x, y: f.kl_div(x.log_softmax(1), y.log_softmax(1), log_target=True, reduction="sum"), (3, 4), (3, 4)),
    )
    yield "poisson_nll_loss", of(lambda x: f.poisson_nll_loss(x, target, full=True), (3, 4))
    yield "gaussian_nll_loss", Operation(lambda x, v: f.gaussian_nll_loss(x, target, v), (real(3, 4), positive(3, 4)))
    yield "cosine_embedding_loss", of(f.cosine_embedding_loss, (3, 4), (3, 4), target=signs)
    yield "hinge_embedding_loss", of(f.hinge_embedding_loss, (3,), target=signs)
    yield "margin_ranking_loss", of(f.margin_ranking_loss, (3,), (3,), target=signs)
    yield "soft_margin_loss", of(f.soft_margin_loss, (3,), target=signs)
    yield "multi_margin_loss", of(f.multi_margin_loss, (3, 4), target=classes)
    yield "multilabel_margin_loss", of(f.multilabel_margin_loss, (3, 4), target=_indices(3, 4, below=4))
    yield "multilabel_soft_margin_loss", of(f.multilabel_soft_margin_loss, (3, 4), target=(target > 0.5).double())
    yield "triplet_margin_loss", of(f.triplet_margin_loss, (3, 4), (3, 4), (3, 4))
    logits = ((3, 1, 3),)
    for name, reduce in {"ctc_loss": "mean", "ctc_loss none": "none"}.items():
        yield (
            name,
            of(
                lambda x, r=reduce: f.ctc_loss(
                    x.log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([3]), torch.tensor([2]), reduction=r
                ),
                *logits,
            ),
        )
    yield (
        "soft Dice",
        of(
            lambda x: 1 - 2 * (x.softmax(1) * f.one_hot(classes, 4)).sum(0) / (x.softmax(1).square().sum(0) + 1), (3, 4)
        ),
    )
    yield "pairwise_distance", of(f.pairwise_distance, (3, 4), (3, 4))
    yield "pdist", of(f.pdist, (3, 2))
    for p in (1.0, 2.0, 3.0):
        yield f"cdist {p}", of(torch.cdist, (3, 2), (2, 2), p=p)
    yield "cdist by products", of(torch.cdist, (3, 2), (2, 2), compute_mode="use_mm_for_euclid_dist")


def _chunked(classes: Tensor, reduction: str, x: Tensor, w: Tensor) -> Tensor:
    return f.linear_cross_entropy(x, w, classes, reduction=reduction, options=nn.LinearCrossEntropyOptions())


def _linear_algebra() -> Iterator[tuple[str, Operation]]:
    linalg = torch.linalg
    yield "matmul", of(torch.matmul, (2, 3), (3, 2))
    yield "bmm", of(torch.bmm, (2, 2, 3), (2, 3, 2))
    yield "baddbmm", of(torch.baddbmm, (2, 2, 2), (2, 2, 3), (2, 3, 2))
    for name in ("inv", "det", "slogdet", "cholesky", "eigvalsh", "pinv", "matrix_exp", "svdvals"):
        function = getattr(linalg, name)
        yield name, of(lambda x, g=function: g(_definite(x) + torch.diag(torch.arange(3.0, dtype=x.dtype))), (3, 3))
    yield "solve", of(lambda a, b: linalg.solve(_definite(a), b), (3, 3), (3, 2))
    yield (
        "solve_triangular",
        of(
            lambda a, b: linalg.solve_triangular(a.tril() + 3 * torch.eye(3, dtype=a.dtype), b, upper=False),
            (3, 3),
            (3, 2),
        ),
    )
    yield "cholesky_solve", of(lambda a, b: torch.cholesky_solve(b, linalg.cholesky(_definite(a))), (3, 3), (3, 2))
    yield "cholesky_inverse", of(lambda a: torch.cholesky_inverse(linalg.cholesky(_definite(a))), (3, 3))
    yield "lu_solve", of(lambda a, b: linalg.lu_solve(*linalg.lu_factor(_definite(a)), b), (3, 3), (3, 2))
    yield "lstsq", of(lambda a, b: linalg.lstsq(a, b).solution, (4, 2), (4, 1))
    yield "eigh", of(lambda a: _outer(linalg.eigh(_definite(a) + torch.diag(torch.arange(3.0, dtype=a.dtype)))), (3, 3))
    yield "svd", of(lambda a: linalg.svd(a, full_matrices=False).S, (3, 2))
    yield "singular vectors", of(lambda a: (lambda u, s, v: u @ v)(*linalg.svd(a, full_matrices=False)), (3, 2))
    yield "qr", of(lambda a: linalg.qr(a).R, (3, 2))
    yield "lu", of(lambda a: linalg.lu(_definite(a)).U, (3, 3))
    yield "nuclear norm", of(linalg.matrix_norm, (3, 2), ord="nuc")
    yield "spectral norm", of(linalg.matrix_norm, (3, 2), ord=2)
    yield "matrix_power", of(linalg.matrix_power, (3, 3), n=3)
    yield "householder_product of reflections", of(_reflections, (3, 2))
    yield "householder_product", of(linalg.householder_product, (3, 2), (2,))
    yield "logdet", of(lambda a: torch.logdet(_definite(a)), (3, 3))
    yield "cross", of(linalg.cross, (2, 3), (2, 3))
    yield "kron", of(torch.kron, (2, 2), (2, 2))
    yield "sparse mm", of(lambda a: torch.sparse.mm(torch.eye(3, dtype=a.dtype).to_sparse(), a), (3, 2))


def _reflections(a: Tensor) -> Tensor:
    columns = a.tril(-1) + torch.eye(*a.shape, dtype=a.dtype)
    return torch.linalg.householder_product(columns, 2 / columns.square().sum(-2))


def _outer(pair: tuple[Tensor, Tensor]) -> Tensor:
    values, vectors = pair
    return (vectors * values.exp().unsqueeze(-2)) @ vectors.mT


OPERATIONS: Mapping[str, Operation] = {
    name: operation
    for part in (
        _convolutions,
        _normalisations,
        _poolings,
        _resampling,
        _activations,
        _attention_and_recurrence,
        _losses,
        _linear_algebra,
    )
    for name, operation in part()
}
