"""Training on patches of volumes: what a step is given, how a volume is segmented, and what cannot be."""

from dataclasses import dataclass, replace

import pytest
import torch
from support.tiny_noise import make_cache, session

from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError, UsageError
from metasynth.running.settings.config import apply_overrides, to_dict
from metasynth.running.settings.renamed import all_renewed
from metasynth.segment.model_file import load_model, model_path
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.parts.patch_generator import PatchGenerator
from metasynth.synthesis.parts.patches import Patches
from metasynth.training.evaluation import make_test_set, segment
from metasynth.training.loop import Pace
from metasynth.training.network_check import check_network, check_segmenter, require_cache
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Augmented, Corrupted, Real, Synthetic, in_patches
from metasynth.training.stages import StudyData, train_bilevel
from metasynth.training.streams import StepData, stream

SHAPE, SIZE = (16, 20, 24), (8, 12, 8)
PATCHES = Patches(SIZE, 0.5)
SYNTHESIS = CornucopiaConfig(elastic_nodes=4)
INNER = SegmenterSettings(widths=(4, 8), batch_size=2, steps=8, patch_size=SIZE)
OUTER = OuterSettings(batch_size=2, warmup=2, every=2, lr=0.1)

PACE = Pace(checkpoint_every=3, workers=0)


@dataclass(frozen=True)
class Settings:
    segmenter: SegmenterSettings = INNER
    outer: OuterSettings = OUTER
    pace: Pace = PACE


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("patches") / "c.h5"
    with Cache(make_cache(path, subjects=6, per_subject=1, shape=SHAPE, images=True, generation=True)) as cache:
        yield SliceDataset(cache, cache.subjects)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def maker(dataset, patches=PATCHES):
    whole = BatchedGenerator(dataset.cache.n_generation, SYNTHESIS)
    return in_patches(whole, patches, dataset.cache.target.tolist())


def tensors(parts):
    return [x for part in parts for x in tensors(part)] if isinstance(parts, tuple) else [parts]


def test_the_size_is_one_number_or_one_an_axis_and_empty_means_whole_images():
    assert SegmenterSettings().patches is None
    assert SegmenterSettings().window == ()
    assert apply_overrides(SegmenterSettings(), ["patch_size=32"]).window == (32, 32, 32)
    chosen = apply_overrides(SegmenterSettings(), ["patch_size=32,48,64", "patch_foreground=0.5"])
    assert chosen.patches == Patches((32, 48, 64), 0.5)


def test_records_from_before_patches_mean_whole_images():
    recorded = to_dict(SegmenterSettings())
    del recorded["patch_size"], recorded["patch_foreground"]
    assert all_renewed(SegmenterSettings(), recorded) == to_dict(SegmenterSettings())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("patch_size=8,8", r"patch_size must be empty, or 1 or 3 numbers of at least 1, got \(8, 8\)"),
        ("patch_size=0", r"patch_size must be empty, or 1 or 3 numbers of at least 1, got \(0,\)"),
        ("patch_foreground=1.5", r"patch_foreground must be in \[0, 1\], got 1.5"),
    ],
)
def test_other_sizes_and_shares_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(SegmenterSettings(), [override])


def test_every_source_gives_patches_with_their_own_labels(dataset):
    batch, made = dataset.read([0, 3, 5]), maker(dataset)
    target = torch.from_numpy(dataset.cache.target)
    for source in (
        Synthetic(made),
        Synthetic(made, takes="structures"),
        Corrupted(made, NoiseLevel(0.1, 0.1)),
        Augmented(made, GaussianNoise(0.2)),
        Real(PATCHES),
    ):
        example = source(batch, seeded())
        assert example.labels.shape == (3, *SIZE)
        assert torch.equal(example.labels, target[example.fine])
        assert example.images is None or example.images.shape == (3, 1, *SIZE)
    real = Real(PATCHES)(batch, seeded())
    assert torch.equal(4 * real.images[:, 0], real.fine.float())  # as the cache was drawn
    assert torch.equal(Real()(batch, seeded()).images, batch.images)


def test_a_reference_in_the_contrast_of_real_patches_is_of_these(dataset):
    real = Real(PATCHES)(dataset.read([1, 2]), seeded())
    reference = Synthetic(maker(dataset)).like(real, seeded())
    assert torch.equal(reference.labels, real.labels)
    assert reference.images.shape == real.images.shape


def data(dataset, **changed):
    made = maker(dataset)
    options = {
        "inner": Synthetic(made),
        "outer": Corrupted(made, NoiseLevel(0.1, 0.1)),
        "seed": 3,
        "batch_size": 3,
        "outer_batch_size": 2,
        "is_due": lambda step: step % 2 == 1,
    }
    return StepData(dataset=dataset, **(options | changed))


def test_a_step_has_the_same_patches_however_a_run_got_there(dataset):
    steps = list(stream(data(dataset), 0, 4, 0))
    again = list(stream(data(dataset), 2, 4, 0))
    assert steps[3].inner.images.shape == (3, 1, *SIZE)
    assert steps[3].outer.images.shape == steps[3].reference.images.shape == (2, 1, *SIZE)
    for one, other in zip(steps[2:], again, strict=True):
        for a, b in zip(tensors(one), tensors(other), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    assert not torch.equal(steps[0].inner.images, steps[1].inner.images)


def test_real_patches_are_those_of_their_step(dataset):
    made = data(dataset, outer=Real(PATCHES))
    assert torch.equal(made[1].outer.images, made[1].outer.images)
    assert not torch.equal(made[1].outer.images, made[3].outer.images)


class Shade(torch.nn.Module):
    """Classes by intensity alone."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.shapes = set()

    def forward(self, images):
        self.shapes.add(tuple(images.shape[2:]))
        levels = torch.arange(3.0).reshape(1, 3, 1, 1, 1)
        return -self.weight * (images - levels / 2).abs()


def test_volumes_are_segmented_in_windows_of_the_patches_size(dataset):
    network, images = Shade().train(), torch.rand(3, 1, *SHAPE, generator=seeded())
    whole = segment(network, images, "cpu")
    network.shapes.clear()
    assert torch.equal(segment(network, images, "cpu", SIZE), whole)
    assert network.shapes == {SIZE}
    assert network.training


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"patch_size": (32,)}, DataError, r"c.h5: its volumes of 16 x 20 x 24 are smaller than segmenter.patch_size = "
         r"32 x 32 x 32$"),
        ({"patch_size": (8, 8, 28)}, DataError, r"are smaller than segmenter.patch_size = 8 x 8 x 28$"),
        ({"patch_size": (9,)}, UsageError, r"^segmenter.patch_size: images of 9 x 9 x 9 cannot be halved 1 times; expec"
         r"ted sizes divisible by 2 for a network of 2 levels$"),
        ({"patch_size": (), "widths": (4, 8, 8, 8)}, DataError, r"c.h5: images of 16 x 20 x 24 cannot be halved 3"),
    ],
)  # fmt: skip
def test_patches_that_do_not_fit_are_refused(dataset, changed, kind, message):
    with pytest.raises(kind, match=message):
        check_segmenter(dataset.cache, replace(INNER, **changed))


def test_slices_have_no_patches(tmp_path):
    with (
        Cache(make_cache(tmp_path / "s.h5")) as cache,
        pytest.raises(DataError, match=r"s.h5: holds coronal slices; segmenter.patch_size = 8 x 12 x 8 is of volumes"),
    ):
        check_segmenter(cache, INNER)


def test_an_augmenting_network_has_to_take_patches_and_volumes(dataset):
    check_network(dataset.cache, (4, 4), "learned.network", SIZE)
    with pytest.raises(UsageError, match=r"^segmenter.patch_size: images of 9 x 8 x 8 .* \(learned.network\)$"):
        check_network(dataset.cache, (4, 4), "learned.network", (9, 8, 8))
    with pytest.raises(DataError, match=r"c.h5: images of 16 x 20 x 24 cannot be halved 3 times"):
        check_network(dataset.cache, (4, 4, 4, 4), "learned.network", (8, 8, 8))


def test_what_is_embedded_has_no_volumes():
    require_cache(SegmenterSettings(), "labels LABEL_MAPS")
    with pytest.raises(
        UsageError,
        match=r"^segmenter.patch_size = 8 x 12 x 8 needs --data, a cache of volumes, as what is embedded are slices: "
        r"metasynth prep labels LABEL_MAPS --3d --spacing 3 --out volumes.h5$",
    ):
        require_cache(INNER, "labels LABEL_MAPS")


def trained(folder, dataset, resume=False, **changed):
    """What bilevel training on patches learned, and its model."""
    whole = BatchedGenerator(dataset.cache.n_generation, SYNTHESIS)
    test = make_test_set(SliceDataset(dataset.cache, ("s5",)), whole, 0, 1)
    training = SliceDataset(dataset.cache, dataset.subjects[:5])
    study = StudyData(training, test, maker(dataset), 3)
    config = Settings(segmenter=replace(INNER, **changed))
    with session(folder, resume, config) as context:
        augmenter = GaussianNoise(0.4)
        found = train_bilevel(context, study, "learn", augmenter, Corrupted(study.generator, NoiseLevel(0.1, 0.1)))
    return found.mean["sigma"], load_model(model_path(folder, "learn"))


def test_checkpointing_changes_no_hypergradient_of_patches(tmp_path, dataset):
    plain, model = trained(tmp_path / "plain", dataset)
    again, checkpointed = trained(tmp_path / "checkpointed", dataset, checkpoint=True)
    assert plain != pytest.approx(0.4, abs=1e-3)
    assert again == pytest.approx(plain, rel=1e-5)
    assert model.description.shape == SHAPE
    assert model.description.patch_size == model.description.window == SIZE
    for key, value in model.network.state_dict().items():
        torch.testing.assert_close(checkpointed.network.state_dict()[key], value, rtol=1e-3, atol=1e-5)


def test_a_generator_without_patches_is_itself(dataset):
    whole = BatchedGenerator(5, SYNTHESIS)
    assert in_patches(whole, None, [0, 0, 2, 1, 1]) is whole
    made = in_patches(whole, PATCHES, [0, 0, 2, 1, 1])
    assert isinstance(made, PatchGenerator)
    assert made.target.tolist() == [0, 0, 2, 1, 1]


def test_a_training_on_patches_goes_on_as_it_would_have(tmp_path, dataset, monkeypatch):
    whole, _ = trained(tmp_path / "whole", dataset)
    plain = StepData.__getitem__

    def stopped(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return plain(self, step)

    monkeypatch.setattr(StepData, "__getitem__", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", dataset)
    monkeypatch.undo()
    again, _ = trained(tmp_path / "parts", dataset, resume=True)
    assert again == whole
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]
