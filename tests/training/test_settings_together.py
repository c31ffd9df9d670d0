"""Settings that cannot go together are refused when they are read; all others can take their steps."""

from itertools import product

import pytest
import torch
from click.testing import CliRunner

from metasynth.augment.noise import GaussianNoise
from metasynth.cli.main import main
from metasynth.segment.losses import cross_entropy_loss, soft_dice_loss
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings, check_together
from metasynth.training.sources import Example
from metasynth.training.stages import bilevel_solver

INNER = {
    "norm": ["none", "batch", "instance"],
    "loss": ["dice_cross_entropy", "dice", "squared_dice", "logit_mse"],
    "dice_over": ["batch", "image"],
    "autocast": ["none", "bfloat16"],
    "batch_size": [1, 3],
    "checkpoint": [False, True],
}
OUTER = {"strategy": ["mixed", "forward", "finite_difference"], "parts": [(0, 0), (2, 0), (0, 1)]}


def settings_of(norm, loss, dice_over, autocast, batch_size, checkpoint, strategy, parts):
    inner = SegmenterSettings(
        widths=(2, 4),
        norm=norm,
        loss=loss,
        dice_over=dice_over,
        autocast=autocast,
        batch_size=batch_size,
        checkpoint=checkpoint,
    )
    return inner, OuterSettings(batch_size=2, strategy=strategy, samples=parts[0], chunk=parts[1])


def example(n, generator):
    labels = torch.randint(0, 3, (n, 8, 8), generator=generator)
    return Example(labels[:, None] / 2, labels, torch.randn(n, 1, 8, 8, generator=generator))


def take_steps(inner, outer, seed=0):
    """The steps of a hypergradient, after all checks; the core's ValueError where there can be none."""
    generator, augmenter = torch.Generator().manual_seed(seed), GaussianNoise(0.3)
    segmenter = inner.build(3, 2, torch.Generator().manual_seed(seed))
    solver = bilevel_solver(segmenter, augmenter, inner, outer)
    batches = [example(inner.batch_size, generator) for _ in range(outer.horizon)]
    solver.step(batches, example(2, generator), example(2, generator))


def assert_settled(combination, seeds):
    """The settings are refused where the core refuses, and nowhere else; with whichever draws."""
    inner, outer = settings_of(*combination)
    if goes_together(inner, outer):
        for seed in seeds:
            take_steps(inner, outer, seed)
    elif inner.autocast == "none" or outer.strategy == "finite_difference":  # its rounding may hide coupled images
        with pytest.raises(ValueError, match=r"InParts needs|FiniteDifference cannot be used"):
            take_steps(inner, outer)


def goes_together(inner, outer):
    try:
        check_together(inner, outer)
    except ValueError:
        return False
    return True


DEFAULTS = ("instance", "dice_cross_entropy", "batch", "none", 3, False, "mixed", (0, 0))
CHOICES = [*INNER.values(), *OUTER.values()]
PAIRS = sorted(
    {
        tuple(first if at == i else second if at == j else default for at, default in enumerate(DEFAULTS))
        for i, j in product(range(len(CHOICES)), repeat=2)
        for first, second in product(CHOICES[i], CHOICES[j])
    },
    key=str,
)


def test_every_pair_of_settings():
    """Of those that the core looks at, the others as they are by default."""
    for combination in PAIRS:
        assert_settled(combination, seeds=(0,))


def test_every_pair_of_settings_of_the_segmenter_with_a_horizon():
    outer = OuterSettings(batch_size=2, horizon=3, mean_of=2)
    for combination in sorted({one[: len(INNER)] for one in PAIRS}, key=str):
        inner, _ = settings_of(*combination, "mixed", (0, 0))
        check_together(inner, outer)
        take_steps(inner, outer)


@pytest.mark.parametrize(("loss", "alone"), [("segmenter", False), ("dice", True)])
def test_the_loss_of_real_images_is_the_segmenter_s_or_its_dice_alone(loss, alone):
    inner = SegmenterSettings(widths=(2, 4), batch_size=2, loss="dice_cross_entropy", dice_over="image")
    outer, generator = OuterSettings(batch_size=2, loss=loss), torch.Generator().manual_seed(0)
    segmenter, real = inner.build(3, 2, generator), example(2, generator)
    solver = bilevel_solver(segmenter, GaussianNoise(0.3), inner, outer)
    logits = segmenter(real.images)
    expected = soft_dice_loss(logits, real.labels, squared=True, batch=False)
    if not alone:
        expected = expected + cross_entropy_loss(logits, real.labels)
    assert solver.problem.outer_loss(segmenter, None, real) == expected


@pytest.mark.slow
def test_every_combination_of_settings():
    for combination in product(*CHOICES):
        assert_settled(combination, seeds=(0, 1))


@pytest.mark.parametrize("loss", INNER["loss"])
def test_rounding_under_autocast_is_no_second_reference(loss):
    """Kernels that can be differentiated twice round in another way, with some draws by more than a hundredth."""
    inner, outer = settings_of("instance", loss, "image", "bfloat16", 3, False, "mixed", (0, 0))
    for seed in range(6):
        take_steps(inner, outer, seed)


FIELDS = ("methods=parametric_fixed", "outer.horizon=1", "outer.mean_of=1")
DICE = "needs segmenter.dice_over = image, as a Dice over the whole batch is no mean over images, got batch"
ROUNDED = (
    "outer.strategy = finite_difference needs segmenter.autocast = none, as it subtracts gradients that would be "
    "rounded too far, got bfloat16"
)
NORM = "needs segmenter.norm = instance or none, as batch statistics couple the images of a batch, got batch"
FORWARD = (
    "outer.strategy must be mixed or finite_difference (the discriminator's spectral norms have no forward-mode "
    "derivative), got forward"
)


@pytest.mark.parametrize(
    ("study", "changed", "line"),
    [
        ("noise", ["outer.samples=4"], f"--set outer: outer.samples = 4 {DICE}"),
        ("inu", ["outer.chunk=2"], f"--set outer: outer.chunk = 2 {DICE}"),
        ("real_world", [*FIELDS, "outer.samples=1"], f"--set methods, outer: outer.samples = 1 {DICE}"),
        (
            "cross_contrast",
            [*FIELDS, "outer.strategy=finite_difference", "segmenter.autocast=bfloat16"],
            f"--set methods, outer, segmenter: {ROUNDED}",
        ),
        (
            "noise",
            ["outer.samples=4", "segmenter.dice_over=image", "segmenter.norm=batch"],
            f"--set outer, segmenter: outer.samples = 4 {NORM}",
        ),
        ("unpaired", ["outer.strategy=forward"], f"--set outer: {FORWARD}"),
    ],
)
def test_one_line_before_there_is_a_folder(tmp_path, study, changed, line):
    words = ["run", study, "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    found = CliRunner().invoke(main, [*words, *(word for one in changed for word in ("--set", one))])
    assert found.exit_code == 2
    assert found.output.splitlines()[-1] == f"Error: {line}"
    assert not (tmp_path / "run").exists()


def test_what_a_run_does_not_use_is_not_refused():
    """Studies without a bilevel training of the segmenter may have any of them."""
    from metasynth.experiments.real_world import PRESETS as REAL
    from metasynth.experiments.unpaired import PRESETS as UNPAIRED

    from metasynth.running.settings.config import apply_overrides

    together = ["outer.strategy=finite_difference", "outer.horizon=1", "outer.mean_of=1", "segmenter.autocast=bfloat16"]
    assert apply_overrides(REAL["quick"], ["methods=naive,supervised", *together]).segmenter.autocast == "bfloat16"
    assert apply_overrides(UNPAIRED["quick"], together).segmenter.autocast == "bfloat16"
    assert apply_overrides(UNPAIRED["quick"], ["methods=naive", "outer.strategy=forward"]).methods == ("naive",)
