"""Networks of other packages: what they are, where their weights come from, and how they are kept."""

import subprocess
import sys

import pytest
import torch
from support.tiny_model import CLASSES, describe
from torch import Tensor, nn

from metasynth.errors import DataError, PackageError, ShapeError, UsageError
from metasynth.segment.backbone import Backbone
from metasynth.segment.backbones import nnunet
from metasynth.segment.model_file import load_model, save_model
from metasynth.segment.monai_networks import monai_network
from metasynth.segment.table import from_recipe

unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
pytest.importorskip("monai")

K = len(CLASSES)
UNET = {"channels": [4, 8], "strides": [2]}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(residual: bool = False, ndim: int = 2, seed: int = 0) -> Backbone:
    return nnunet(K, (16,) * ndim, (1.0,) * ndim, residual, 4, 8, seeded(seed))


def monai(seed: int = 0, ndim: int = 2) -> Backbone:
    return monai_network("UNet", K, (16,) * ndim, generator=seeded(seed), **UNET)


MADE = {
    "nnunet": small,
    "residual": lambda seed=0, ndim=2: small(True, ndim, seed),
    "monai": monai,
}


@pytest.mark.parametrize("residual", [False, True])
def test_it_is_nnunets_own_network(residual: bool) -> None:
    """Without the heads and second names that were dropped, and with torch's own instance normalisation."""
    network = small(residual).double().network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=seeded(1)))
    made = unet.ResidualEncoderUNet if residual else unet.PlainConvUNet
    blocks = {"n_blocks_per_stage": [1, 3, 4]} if residual else {"n_conv_per_stage": [2, 2, 2]}
    original = made(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 8],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        num_classes=K,
        n_conv_per_stage_decoder=1 if residual else 2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **blocks,
    ).double()
    weights = {key.replace("seg_layers.0", "seg_layers.1"): value for key, value in network.state_dict().items()}
    missing, unexpected = original.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all("decoder.encoder" in key or "all_modules" not in key for key in missing)
    images = torch.randn(2, 1, 16, 16, dtype=torch.float64, generator=seeded(2))
    torch.testing.assert_close(network(images), original(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("residual", [False, True])
def test_weights_begin_as_nnunets_and_are_kept_once(residual: bool) -> None:
    network = nnunet(K, (64, 64), (1.0, 1.0), residual, 32, 64, seeded(0))
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is None or not m.bias.any() for m in convs)
    deep = convs[-3].weight
    assert deep.std().item() == pytest.approx((2 / (1 + 1e-4) / deep[0].numel()) ** 0.5, rel=0.05)
    lasts = [m.conv2.all_modules[1].weight for m in network.modules() if hasattr(m, "conv2")]
    assert bool(lasts) == residual
    assert not any(weight.any() for weight in lasts)
    state = network.state_dict()
    assert sum(v.numel() for v in state.values()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", MADE)
def test_weights_come_from_the_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (MADE[name](seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.values(), same.values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", MADE)
def test_a_model_comes_back_as_it_was(tmp_path, name: str, ndim: int) -> None:
    network = MADE[name](ndim=ndim).to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)
    images = torch.randn(2, 1, *[16] * ndim, generator=seeded(1))
    save_model(tmp_path / "m.pt", network, describe(ndim))
    before = torch.get_rng_state()
    again = load_model(tmp_path / "m.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.stride == (None if name == "monai" else (4,) * ndim)
    assert (again.ndim, again.in_channels, again.network.training) == (ndim, 1, False)
    # In another memory format sums are rounded otherwise.
    torch.testing.assert_close(again.network(images), network.eval()(images), rtol=1e-3, atol=1e-4)
    kept = again.network.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("AttentionUnet", UNET),
        ("BasicUNet", {"features": [4] * 6, "norm": ["group", {"num_groups": 2}]}),
        ("BasicUNetPlusPlus", {"features": [4] * 6, "deep_supervision": True, "norm": "batch"}),  # a list
        (
            "DynUNet",  # outputs stacked behind the batch
            {
                "kernel_size": [3] * 3,
                "strides": [1, 2, 2],
                "upsample_kernel_size": [2, 2],
                "filters": [4] * 3,
                "deep_supervision": True,
            },
        ),
        ("SegResNetVAE", {"input_image_size": [16, 16], "init_filters": 8}),  # with a loss beside the logits
        ("UNETR", {"feature_size": 4, "hidden_size": 8, "mlp_dim": 8, "num_heads": 2}),
    ],
)
def test_networks_of_monai(name: str, arguments: dict) -> None:
    network = monai_network(name, K, (16, 16), generator=seeded(0), **arguments)
    images = torch.randn(2, 1, 16, 16, generator=seeded(1))
    for mode in (True, False):
        logits = network.train(mode)(images)
        assert logits.shape == (2, K, 16, 16)
        assert logits.isfinite().all()
    assert from_recipe(network.recipe).recipe == network.recipe


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("UNett", {}, r"^monai: there is no network 'UNett' in monai.networks.nets; did you mean 'UNet' or "),
        ("UNet", {**UNET, "kernels": 3}, "^monai UNet: has no argument 'kernels'; did you mean 'kernel_size'"),
        ("UNet", {"channels": [4, 8]}, "^monai UNet: needs the argument strides$"),
        ("UNet", {**UNET, "out_channels": 9}, f"^monai UNet: out_channels is {K} here, as the data are; leave it out$"),
        ("UNet", {"channels": [4], "strides": []}, "^monai UNet: cannot be made with .*length of `channels`"),
        ("Quicknat", {}, "^monai Quicknat: is no segmentation network: it has no in_channels, or no out_channels or "),
        ("FlexibleUNet", {"backbone": "resnet10", "pretrained": True}, "^monai FlexibleUNet: pretrained: weights are"),
    ],
)
def test_what_monai_cannot_make(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        monai_network(name, K, (16, 16), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "why"),
    [
        ("UNet", (15, 16), UNET, r"expected logits \(2, 4, 15, 16\) from it, got \(2, 4, 16, 16\)"),
        ("ViT", (16, 16), {"patch_size": 4}, "expected logits"),
        ("BasicUNet", (16, 16), {}, "Expected more than 1 spatial element"),
    ],
)
def test_images_that_monais_networks_cannot_take(name: str, shape: tuple[int, ...], arguments: dict, why: str) -> None:
    by = " x ".join(map(str, shape))
    with pytest.raises(ShapeError, match=f"^images of {by} cannot go through monai's {name}: .*{why}"):
        monai_network(name, K, shape, **arguments)


def test_images_that_nnunet_cannot_take() -> None:
    with pytest.raises(ShapeError, match=r"^images of 18 x 16 cannot .* divisible by 4 x 4, such as 20 x 16$"):
        nnunet(K, (18, 16), (1.0, 1.0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 2, 16, 16), r"must have shape \(B, 1, \*S\) with 2 voxel axes, got \(1, 2, 16, 16\)"),
        (torch.zeros(1, 1, 16), "must have shape"),
        (torch.zeros(1, 1, 16, 18), r"voxel axes must be multiples of \(4, 4\), got \(16, 18\)"),
    ],
)
def test_wrong_images(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^images: {message}"):
        small()(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": 3}, "kind: must be the name of a network, got 3"),
        ({"features": (4, 8)}, "features, strides and kernel_sizes: must be of the same"),
        ({"features": (4, 8, 16)}, r"Error\(s\) in loading state_dict"),
        ({"n_classes": 3}, "class_names: must name the network's 3 classes"),
    ],
)
def test_a_file_of_another_network(tmp_path, change: dict, message: str) -> None:
    path = tmp_path / "m.pt"
    save_model(path, small(), describe())
    content = torch.load(path, weights_only=True)
    torch.save({**content, "network": {**content["network"], **change}}, path)
    with pytest.raises(DataError, match=rf"m\.pt: its parts do not fit together .*{message}"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "module", "distribution"),
    [
        ("nnunet", "dynamic_network_architectures.architectures.unet", "dynamic-network-architectures"),
        ("monai", "monai.networks.nets", "monai"),
    ],
)
def test_a_package_that_is_missing(tmp_path, monkeypatch, name: str, module: str, distribution: str) -> None:
    save_model(tmp_path / "m.pt", MADE[name](), describe())
    monkeypatch.setitem(sys.modules, module, None)
    line = rf"the network {name} needs the package {distribution}: pip install 'metasynth-toolkit\[{name}\]'$"
    with pytest.raises(PackageError, match=f"^{line}"):
        MADE[name]()
    with pytest.raises(PackageError, match=rf"m\.pt: {line}"):
        load_model(tmp_path / "m.pt")


def test_importing_the_package_imports_neither() -> None:
    code = (
        "import sys, metasynth.cli.main, metasynth.training.settings, metasynth.segment.backbones\n"
        "import metasynth.predict.folder\n"
        "print([name for name in ('monai', 'dynamic_network_architectures', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("fits", [True, False])
def test_a_network_whose_shapes_cannot_be_followed_is_tried_with_numbers(monkeypatch, fits):
    nets = pytest.importorskip("monai.networks.nets")
    passes = []

    class Computed(torch.nn.Conv2d):
        def __init__(self, in_channels, out_channels):
            super().__init__(in_channels, out_channels, 3, padding=int(fits))

        def forward(self, images):
            passes.append(images.device.type)
            if images.device.type == "meta":
                raise NotImplementedError("data-dependent")
            return super().forward(images)

    monkeypatch.setattr(nets, "Computed", Computed, raising=False)
    if fits:
        assert monai_network("Computed", 3, (8, 8), generator=torch.Generator()).n_classes == 3
    else:
        with pytest.raises(ShapeError, match="images of 8 x 8 cannot go through monai's Computed"):
            monai_network("Computed", 3, (8, 8), generator=torch.Generator())
    assert passes == ["meta", "cpu"]
