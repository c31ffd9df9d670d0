"""Files of what was learned: what comes back, and what is refused in one line."""

from copy import deepcopy

import pytest
import torch
from augment.augmenters import PRIORS, given_to, seeded
from support.tiny_noise import STRUCTURES, make_cache

from metasynth.augment.entry import Start
from metasynth.augment.table import entry_of
from metasynth.errors import DataError
from metasynth.tensor_files import load_tensors, save_tensors
from metasynth.training.augmenter_file import augmenter_bytes, augmenter_name, check_frozen, load_augmenter

LABELS = ("background", "a", "b", "c")


def start_of(**options):
    return Start(2, seeded(0), priors=PRIORS, structures=4, network=(2, 3), **options)


def kept(folder, name="synthesis_estimated", labels=LABELS, **options):
    start = start_of(**options)
    augmenter = entry_of(name).made(start)
    began = deepcopy(augmenter)
    with torch.no_grad():
        for parameter in augmenter.parameters():
            parameter += 0.2
    path = folder / "kept.augmenter"
    path.write_bytes(augmenter_bytes(name, start, labels, augmenter, began))
    return path, augmenter


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["synthesis_estimated", "synthesis_random", "nonparametric_varying"])
def test_an_augmenter_comes_back_as_it_was(name, share, tmp_path):
    path, augmenter = kept(tmp_path, name, random_share=share)
    found = load_augmenter(path)
    assert (found.name, found.labels, found.ndim, found.augmenter.training) == (name, LABELS, 2, False)
    images = torch.rand(4, 1, 8, 8, generator=seeded(1))
    draws = augmenter.draw(images, seeded(2))
    given = given_to(augmenter, images)
    assert torch.equal(found.augmenter(given, draws), augmenter(given, draws))
    assert found.augmenter.observed() == augmenter.observed()
    for (key, ended), began in zip(augmenter.named_parameters(), found.start.parameters(), strict=True):
        torch.testing.assert_close(began, ended - 0.2, msg=key)


def test_one_from_before_strengths_differed_between_images_makes_them_all_alike(tmp_path):
    path, augmenter = kept(tmp_path, varying=0.5)
    start = load_tensors(path, "it", DataError)["start"]
    found = load_augmenter(spoiled(path, start={k: v for k, v in start.items() if k != "varying"})).augmenter
    images = torch.rand(4, 1, 8, 8, generator=seeded(1))
    assert (augmenter.varying, found.varying) == (0.5, 0.0)
    assert torch.equal(found.draw(images, seeded(2)).widths, torch.ones(4, 2))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("which", ["state", "began"])
def test_a_synthesis_from_before_textures_had_grains_is_refused(which, share, tmp_path):
    path, augmenter = kept(tmp_path, random_share=share)
    state = load_tensors(path, "it", DataError)[which]
    line = "a synthesis from before textures had grains, which made other images: learn it again"
    before = {key: value for key, value in state.items() if not key.endswith("raw_grain")}
    assert len(before) == len(state) - (2 if share else 1)
    with pytest.raises(DataError) as refused:
        load_augmenter(spoiled(path, **{which: before}))
    assert str(refused.value) == f"{path}: {line}"
    with pytest.raises(DataError) as refused:
        deepcopy(augmenter).load_state_dict(before)  # as a run that was interrupted does
    assert str(refused.value) == line


def test_a_run_keeps_it_in_a_folder_of_its_own():
    assert augmenter_name("n=5/synthesis_random") == "learned/n=5-synthesis_random.augmenter"


def spoiled(path, **changes):
    save_tensors(path, {**load_tensors(path, "it", DataError), **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": "metasynth-model"}, "{path}: is no file of an augmenter: format: expected one of "
         "metasynth-augmenter/1, got 'metasynth-model'"),
        ({"name": "blur"}, "{path}: unknown augmenter 'blur': expected one of fixed, "),
        ({"start": {"ndim": 2, "priors": None}}, "{path}: augmenter 'synthesis_estimated': must be given estimated "
         "priors, got none"),
        ({"start": {}}, "{path}: is no file of an augmenter: start: "),
        ({"start": {"ndim": 2, "colour": 3}}, "{path}: its parts do not fit together (Start.__init__() got an "
         "unexpected keyword argument 'colour')"),
        ({"start": {"ndim": 2, "priors": [[0, 1]]}}, "{path}: its parts do not fit together (Priors.__new__() "),
        ({"state": {}}, "{path}: its parts do not fit together (Error(s) in loading state_dict"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(changes, line, tmp_path):
    path, _ = kept(tmp_path)
    with pytest.raises(DataError) as refused:
        load_augmenter(spoiled(path, **changes))
    assert str(refused.value).startswith(line.format(path=path))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    path, _ = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    for one, line in (
        (path, "the augmenter is damaged"),
        (tmp_path / "no", "the augmenter cannot be read: No such file or directory"),
    ):
        with pytest.raises(DataError) as refused:
            load_augmenter(one)
        assert str(refused.value).startswith(f"{one}: {line}")


def test_one_for_other_images_is_refused(tmp_path):
    maps, volumes = make_cache(tmp_path / "c.h5", generation=True), make_cache(tmp_path / "v.h5", shape=(8, 8, 8))
    path, _ = kept(tmp_path)
    with pytest.raises(DataError) as refused:
        check_frozen(path, maps)
    assert str(refused.value) == (
        f"{path}: synthesis_estimated was learned of the generation labels background, a, b, c, {maps} has "
        "background, fluid, cortex, white matter, core"
    )
    with pytest.raises(DataError) as refused:
        check_frozen(path, volumes)
    assert str(refused.value) == f"{path}: synthesis_estimated is for images of 2 axes, {volumes} has 3"
    noise, _ = kept(tmp_path, "parametric_fixed")  # which sees no structures
    assert check_frozen(noise, maps).path == noise
    own, _ = kept(tmp_path, "synthesis_random", STRUCTURES)
    assert len(check_frozen(own, maps).digest) == 64
