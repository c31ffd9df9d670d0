"""Whether a run fits the machine is told before anything is made, and nothing is counted that is not needed."""

import shutil
from dataclasses import replace

import pytest
import torch
from metasynth.experiments import inu, noise, real_world
from support.tiny_noise import make_cache

from metasynth import sizes
from metasynth.errors import UsageError
from metasynth.running.prepared import PreparedData
from metasynth.running.settings.arguments import Arguments
from metasynth.segment.unet import UNet
from metasynth.synthesis.config import PAPER
from metasynth.training import run_sizes
from metasynth.training.loop import Pace
from metasynth.training.run_sizes import Items, step_bytes
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings

ITEMS = Items(3, (16, 16), (3.0, 3.0), (2, 2, 2), 3)
SMALL = SegmenterSettings(widths=(4, 8))


def kept_by_hand(checkpoint: bool) -> int:
    """Bytes of what a real forward pass keeps, parameters included once, of 2 images; and of the logits."""
    model = UNet(3, 2, widths=(4, 8), norm="instance", checkpoint=checkpoint)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(torch.zeros(2, 1, 16, 16))
    weights = sum(p.numel() for p in model.parameters()) * 4
    return 4 * weights + sum(kept.values()) + logits.untyped_storage().nbytes()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_step_is_counted_as_a_real_one_keeps_it(checkpoint):
    counted = step_bytes(replace(SMALL, checkpoint=checkpoint, channels_last=False), ITEMS, 2)
    assert counted == kept_by_hand(checkpoint)


def test_checkpoints_and_half_precision_are_counted():
    plain, checkpointed = (step_bytes(replace(SMALL, checkpoint=c), ITEMS, 64) for c in (False, True))
    assert checkpointed < 0.8 * plain
    assert step_bytes(replace(SMALL, autocast="bfloat16"), ITEMS, 64) < 0.6 * plain


@pytest.mark.parametrize(
    "changed",
    [
        {"network": "nnunet"},
        {"network": "monai", "widths": ()}
        | {"network_arguments": Arguments.parse('{"class": "UNet", "channels": [4, 8], "strides": [2]}')},
    ],
)
def test_networks_of_other_packages_are_counted(changed):
    if changed["network"] == "monai":
        pytest.importorskip("monai")
    else:
        pytest.importorskip("dynamic_network_architectures")
    one, many = (step_bytes(replace(SMALL, **changed), ITEMS, n) for n in (1, 101))
    assert 0 < one < many


def test_a_step_on_patches_keeps_what_the_patches_take_whatever_the_head_takes(tmp_path, monkeypatch):
    patches = replace(SMALL, patch_size=(16,))
    head, larger = (Items(3, (n,) * 3, (1.0,) * 3, (1, 1, 1), 3) for n in (128, 192))
    kept = step_bytes(patches, head.part(patches.window), 2)
    assert kept == step_bytes(patches, larger.part(patches.window), 2) < 0.01 * step_bytes(SMALL, head, 2)
    assert head.part(()) == head
    monkeypatch.setattr(run_sizes, "_largest_memory", lambda: 2 * kept)
    config = noise.NoiseConfig(segmenter=replace(patches, batch_size=2), outer=OuterSettings(batch_size=2))
    run_sizes.require_run(config, larger, tmp_path)
    with pytest.raises(UsageError, match=r"widths, segmenter.patch_size: a step on 2 images of 192 x 192 x 192 takes"):
        run_sizes.require_run(replace(config, segmenter=replace(config.segmenter, patch_size=())), larger, tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return PreparedData(make_cache(tmp_path_factory.mktemp("cache") / "c.h5"), "d")


HUGE = 2_000_000_000


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"segmenter": replace(SMALL, batch_size=HUGE)},
            "segmenter.batch_size, segmenter.widths: a step on 2000000000",
        ),
        (
            {"segmenter": SegmenterSettings(widths=(10**6, 10**6))},
            "segmenter.batch_size, segmenter.widths: a step on 8",
        ),
        ({"segmenter": SegmenterSettings(widths=(HUGE, 4))}, "segmenter.widths, segmenter.batch_size: more than torch"),
        ({"outer": OuterSettings(batch_size=HUGE)}, "outer.batch_size: a step on 2000000000 images of 16 x 16 takes"),
        ({"pace": Pace(workers=HUGE)}, "pace.workers: expected at most "),
        ({"segmenter": replace(SMALL, steps=2**31 - 1)}, "segmenter.steps: a record of each of 2147483647 steps takes"),
        ({"test_repeats": HUGE}, "test_repeats: a test set of 4000000000 images of 16 x 16 takes at least 11.2 TiB"),
    ],
)
def test_runs_that_cannot_be_held_are_refused(prepared, changed, line, monkeypatch):
    config = replace(noise.PRESETS["quick"], segmenter=SMALL)
    noise.EXPERIMENT.check_sizes(config, prepared, prepared.path)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**11))
    with pytest.raises(UsageError) as error:
        noise.EXPERIMENT.check_sizes(replace(config, **changed), prepared, prepared.path)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("name", "value"), [("elastic_nodes", HUGE), ("bias", 10**6), ("gmm_fwhm", 1e18), ("motion_fwhm", 1e300)]
)
def test_draws_that_cannot_be_held_are_refused(prepared, name, value):
    config = replace(noise.PRESETS["quick"], segmenter=SMALL)
    config = replace(config, synthesis=replace(config.synthesis, **{name: value}))
    with pytest.raises(UsageError) as error:
        noise.EXPERIMENT.check_sizes(config, prepared, prepared.path)
    assert str(error.value).startswith(f"synthesis.{name}: drawing 8 images with {value:g} takes ")


def test_a_horizon_holds_the_batches_of_its_steps_and_the_graphs_of_some(prepared, monkeypatch):
    step = step_bytes(SMALL, ITEMS, 8)
    least = 80 * 8 * 256 * 12 + 9 * step  # float images and 64-bit labels; nine steps are recomputed at a time
    outer = OuterSettings(horizon=80, every=80)
    monkeypatch.setattr(run_sizes, "_largest_memory", lambda: least)
    run_sizes.require_horizon(outer, ITEMS, 8, step, "segmenter.batch_size")
    monkeypatch.setattr(run_sizes, "_largest_memory", lambda: least - 1)
    with pytest.raises(UsageError, match=r"^outer.horizon, segmenter.batch_size: a hypergradient of 80 steps on 8 "):
        run_sizes.require_horizon(outer, ITEMS, 8, step, "segmenter.batch_size")
    run_sizes.require_horizon(replace(outer, horizon=1), ITEMS, 8, 2**80, "segmenter.batch_size")


@pytest.mark.parametrize("study", [noise, real_world])
def test_each_study_counts_the_horizon_of_its_segmenter(tmp_path, study, monkeypatch):
    monkeypatch.setattr(run_sizes, "_largest_memory", lambda: 2**30)
    prepared = PreparedData(make_cache(tmp_path / "c.h5", images=True), "d")
    config = study.PRESETS["quick"]
    if study is real_world:
        config = replace(config, methods=("parametric_fixed",))
    outer = replace(config.outer, horizon=10**6, every=10**6, until=0)
    config = replace(config, segmenter=replace(SMALL, steps=2 * 10**6), outer=outer)
    with pytest.raises(UsageError) as error:
        study.EXPERIMENT.check_sizes(config, prepared, tmp_path)
    assert str(error.value).startswith(
        "outer.horizon, segmenter.batch_size: a hypergradient of 1000000 steps on 8 images of 16 x 16 takes at least"
    )


def test_draws_are_counted_for_the_generation_labels_of_the_label_maps(tmp_path, monkeypatch):
    plain = make_cache(tmp_path / "plain.h5")
    fine = make_cache(tmp_path / "fine.h5", generation=True)
    assert (Items.of(plain).n_classes, Items.of(plain).n_generation) == (3, 3)
    assert (Items.of(plain, fine).n_classes, Items.of(plain, fine).n_generation) == (3, 5)
    config = replace(PAPER, gmm_fwhm=1e6)
    least = 8 * int(4 * 8 / 2.355 / 3 * 1e6)  # bytes of two foreground classes, and half of those of four structures
    monkeypatch.setattr(sizes, "available_memory", lambda: int(1.5 * least))
    run_sizes.require_synthesis(config, Items.of(plain), 8, "synthesis")
    with pytest.raises(UsageError, match=r"^synthesis.gmm_fwhm: drawing 8 images with 1e\+06 takes "):
        run_sizes.require_synthesis(config, Items.of(plain, fine), 8, "synthesis")


def test_fields_and_networks_that_cannot_be_held_are_refused(prepared):
    config = replace(inu.PRESETS["quick"], segmenter=replace(SMALL, norm="none"))
    with pytest.raises(UsageError, match=r"^nodes: drawing 8 fields takes"):
        inu.EXPERIMENT.check_sizes(replace(config, nodes=(2, 4, HUGE)), prepared, prepared.path)
    config = replace(config, augmenter="nonparametric")
    with pytest.raises(UsageError, match=r"^network: a step on 8 images of 16 x 16 takes at least 64.0 PiB"):
        inu.EXPERIMENT.check_sizes(replace(config, network=(HUGE, 10**6)), prepared, prepared.path)


def test_a_gpu_may_hold_what_the_machine_does_not(prepared, monkeypatch):
    monkeypatch.setattr(run_sizes, "_largest_memory", lambda: 2**80)
    config = replace(noise.PRESETS["quick"], segmenter=SegmenterSettings(widths=(10**6, 10**6)))
    noise.EXPERIMENT.check_sizes(config, prepared, prepared.path)


@pytest.mark.parametrize("average", [1, 2, 3])
@pytest.mark.parametrize("every", [1, 2, 3, 7])
@pytest.mark.parametrize("warmup", [0, 1, 5, 30])
def test_outer_steps_are_counted_without_going_through_them(warmup, every, average):
    settings = OuterSettings(warmup=warmup, every=every, average=average)
    for steps in (1, 6, 29, 30, 31):
        assert settings.outer_steps(steps) == sum(map(settings.is_due, range(steps))) // average
    assert settings.outer_steps(HUGE) == -(-(HUGE - warmup) // every) // average
