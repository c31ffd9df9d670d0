"""Which network the settings ask for, and what of them concerns it."""

import json
from dataclasses import replace

import pytest
import torch
from metasynth.experiments.recovery.study_data import check_cache
from support.tiny_model import describe
from support.tiny_noise import make_cache

from metasynth.errors import DataError, UsageError
from metasynth.running.settings.config import apply_overrides, from_dict, to_dict
from metasynth.running.settings.renamed import tell_renamed
from metasynth.segment.backbone import Backbone
from metasynth.segment.entry import BackboneEntry
from metasynth.segment.model_file import load_model, save_model
from metasynth.segment.unet import UNet
from metasynth.training.segmenter_settings import SegmenterSettings

pytest.importorskip("dynamic_network_architectures")
pytest.importorskip("monai")

UNET = {"channels": [4, 8], "strides": [2]}
MONAI = ["network=monai", f"network_arguments={json.dumps({'class': 'UNet', **UNET})}"]
OLD_MONAI = ["network=monai", "monai=UNet", f"monai_arguments={json.dumps(UNET)}"]
NETWORKS = {
    "unet": ["widths=4,8"],
    "nnunet": ["network=nnunet", "widths=4,8"],
    "nnunet_residual": ["network=nnunet_residual", "widths=4,8"],
    "monai": MONAI,
}


def settings(*overrides: str) -> SegmenterSettings:
    return apply_overrides(SegmenterSettings(), overrides)


def built(chosen: SegmenterSettings, shape: tuple[int, ...] = (16, 16), seed: int = 0) -> torch.nn.Module:
    spacing = (1.0,) * len(shape)
    return chosen.build(3, len(shape), torch.Generator().manual_seed(seed), shape, spacing)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_made_from_settings_that_are_kept_as_json(name: str) -> None:
    chosen = settings(*NETWORKS[name])
    again = from_dict(SegmenterSettings, json.loads(json.dumps(to_dict(chosen))))
    assert again == chosen
    assert hash(again) == hash(chosen)
    for shape in ((16, 16), (8, 16, 16)):
        model = built(chosen, shape)
        assert isinstance(model, UNet if name == "unet" else Backbone)
        assert model(torch.zeros(2, 1, *shape)).shape == (2, 3, *shape)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), built(again, shape).parameters(), strict=True))


def test_widths_are_those_of_nnunet() -> None:
    model = built(settings("network=nnunet", "widths=4,8,16"), (64, 64))
    assert isinstance(model, Backbone)
    assert model.recipe["features"] == (4, 8, 16, 16, 16)
    assert model.recipe["residual"] is False
    residual = built(settings("network=nnunet_residual", "widths=4"), (64, 64))
    assert isinstance(residual, Backbone)
    assert residual.recipe["features"] == (4,) * 5
    assert residual.recipe["residual"] is True


def test_spacing_counts() -> None:
    chosen = settings("network=nnunet", "widths=4,8")
    model = chosen.build(3, 2, torch.Generator(), (16, 32), (3.0, 1.0))
    assert isinstance(model, Backbone)
    assert model.stride == (4, 8)
    with pytest.raises(ValueError, match="shape and spacing_mm: the network nnunet is configured from them, got None"):
        chosen.build(3, 2, torch.Generator())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network=resnet"], "network: expected one of unet, nnunet, nnunet_residual, monai, got 'resnet'"),
        (
            ['network_arguments={"class": "UNet"}'],
            "--set network_arguments: network_arguments must be {} with network = unet, which does not take it, got "
            "{'class': 'UNet'}$",
        ),
        (["network=nnunet", 'network_arguments={"a": 1}'], "network_arguments must be {} with network = nnunet, which"),
        (
            ["network=nnunet", "norm=batch"],
            "norm must be instance with network = nnunet, which does not take it, got batch$",
        ),
        (
            ["network=nnunet_residual", "checkpoint=true"],
            "checkpoint must be false with network = nnunet_residual, which does not take it, got true$",
        ),
        (["network=nnunet", "widths=4,6,8"], r"widths must double from the first up to the last .*, got \(4, 6, 8\)"),
        (["network=nnunet", "widths="], "levels must be at least 1, got 0"),
        (
            ["network=monai"],
            "network_arguments must name a class of monai.networks.nets with network = monai, as in "
            '{"class": "UNet"}, got {}$',
        ),
        (["network=monai", 'network_arguments={"class": 3}'], "must name a class of .*, got {'class': 3}$"),
        (
            ["network=monai", 'network_arguments={"class": "UNet", "generator": 1}'],
            "network_arguments: generator: weights are drawn from the run's seed; leave it out$",
        ),
        ([*MONAI, "norm=none"], "norm must be instance with network = monai, which does not take it, got none"),
        ([*MONAI, "widths=4,8"], r"widths must be empty \(widths=\) with network = monai, .*, got \(4, 8\)"),
        (
            ["network_arguments=channels"],
            'network_arguments: got .channels.: must be a JSON object such as {"features"',
        ),
        (
            ['network_arguments={"channels": [4], "channels": [8]}'],
            "network_arguments: got .*: the key 'channels' is given twice",
        ),
        (["network_arguments=[1]"], "network_arguments: got '.1.': must be a JSON object such as"),
        (["monai_arguments=[1]"], "monai_arguments: got '.1.': must be a JSON object such as"),
    ],
)
def test_what_does_not_concern_the_network_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        settings(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("before", [[], ["norm=batch"], ["network=nnunet", "widths=8,16"]])
def test_a_model_to_start_from_brings_its_network(name: str, before: list[str], tmp_path) -> None:
    chosen = settings(*NETWORKS[name])
    path = tmp_path / "m.pt"
    described = describe(class_names=("background", "a", "b"), shape=(16, 16))
    save_model(path, built(chosen), described)
    begun = apply_overrides(settings(*before), [f"start={path}"])
    assert begun.start == str(path)
    weights = load_model(path).network.state_dict()
    built(begun, seed=1).load_state_dict(weights)
    assert (begun.network, begun.network_arguments) == (chosen.network, chosen.network_arguments)
    given = settings(f"start={path}", "lr=0.5")
    assert (given.lr, given.network, given.norm) == (0.5, chosen.network, chosen.norm)
    other = settings(f"start={path}", "network=unet", "widths=8,16", "norm=none")  # is refused later, by its name
    assert (other.network, other.widths, other.norm) == ("unet", (8, 16), "none")


def test_an_own_network_comes_by_what_its_design_says() -> None:
    entry = BackboneEntry("own", "of a test", lambda design: torch.nn.Identity(), takes=("widths", "checkpoint"))
    assert entry.settings_of({"kind": "own", "widths": [4, 8], "checkpoint": True, "norm": "none"}) == {
        "network": "own",
        "widths": [4, 8],
    }
    again = replace(entry, remake=lambda recipe, generator: UNet(2))
    assert again.settings_of({"kind": "own", "depth": 3}) == {"network": "own"}


def test_earlier_names_are_taken_in_any_order_and_told_once(caplog) -> None:
    tell_renamed.cache_clear()
    wanted = settings(*MONAI)
    for overrides in (OLD_MONAI, [OLD_MONAI[0], *reversed(OLD_MONAI[1:])]):
        assert settings(*overrides) == wanted
    assert [record.message for record in caplog.records] == [
        "monai is now network_arguments; the old spelling goes in 0.3",
        "monai_arguments is now network_arguments; the old spelling goes in 0.3",
    ]
    assert settings(*MONAI, "monai=BasicUNet").network_arguments.to_json() == {"class": "BasicUNet", **UNET}


def test_an_earlier_name_of_a_setting_is_refused_by_what_it_is_now() -> None:
    with pytest.raises(UsageError, match=r"^--set network_arguments: network_arguments must be {} with network = unet"):
        settings("monai=UNet")


@pytest.mark.parametrize(
    ("now", "then"),
    [([], {"monai": "", "monai_arguments": {}}), (MONAI, {"monai": "UNet", "monai_arguments": UNET})],
)
def test_settings_of_earlier_runs_are_read(caplog, now: list[str], then: dict) -> None:
    wanted = settings(*now)
    recorded = to_dict(wanted)
    del recorded["network_arguments"]
    assert from_dict(SegmenterSettings, {**recorded, **then}) == wanted
    assert caplog.records == []
    with pytest.raises(UsageError, match=r"^s.monai: expected text, got 3$"):
        from_dict(SegmenterSettings, {**recorded, "monai": 3}, "s")
    with pytest.raises(UsageError, match=r"^missing setting network_arguments$"):
        from_dict(SegmenterSettings, recorded)


def test_what_a_preset_has_for_its_network_does_not_go_with_another() -> None:
    small = SegmenterSettings(widths=(8, 16), norm="none", checkpoint=True)
    changed = apply_overrides(small, MONAI)
    assert (changed.widths, changed.norm, changed.checkpoint) == ((16, 32, 64, 128), "instance", False)
    assert apply_overrides(small, ["network=nnunet"]).widths == (8, 16)
    assert apply_overrides(small, ["network=unet", "lr=0.1"]).norm == "none"
    with pytest.raises(UsageError, match=r"^--set network, norm: norm must be instance with network = nnunet"):
        apply_overrides(small, ["network=nnunet", "norm=batch"])


def test_widths_of_a_preset_can_be_taken_back() -> None:
    small = SegmenterSettings(widths=(8, 16))
    assert apply_overrides(small, [*MONAI, "widths="]).widths == ()


@pytest.mark.parametrize(
    ("overrides", "shape", "message"),
    [
        (NETWORKS["unet"], (16, 15), "images of 16 x 15 cannot be halved 1 times; expected sizes divisible by 2"),
        (NETWORKS["nnunet"], (16, 18), "images of 16 x 18 cannot go through nnU-Net's 3 levels; .* by 4 x 4, such as"),
        (NETWORKS["nnunet"], (8, 6), "images of 8 x 6 are too small for nnU-Net"),
        (NETWORKS["monai"], (16, 15), "images of 16 x 15 cannot go through monai's UNet"),
    ],
)
def test_a_cache_is_checked_for_the_network(tmp_path, overrides: list[str], shape: tuple[int, int], message: str):
    path = make_cache(tmp_path / "c.h5", shape=shape)
    with pytest.raises(DataError, match=f"c.h5: {message}"):
        check_cache(path, settings(*overrides))
    fits = make_cache(tmp_path / "fits.h5", shape=(16, 20))
    assert check_cache(fits, settings(*overrides)).path == fits


def test_an_unknown_network_of_monai_is_no_fault_of_the_cache(tmp_path) -> None:
    path = make_cache(tmp_path / "c.h5")
    with pytest.raises(UsageError, match=r"^monai: there is no network 'UNett'"):
        check_cache(path, settings(MONAI[0], 'network_arguments={"class": "UNett"}'))
