import json
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metasynth.experiments.recovery.study import RecoveryConfig
from metasynth.experiments.recovery.study_data import check_cache, load_study_data
from support.tiny_noise import make_cache, session

from metasynth.data.splits import make_split
from metasynth.errors import DataError
from metasynth.running.examples import load_examples, save_examples
from metasynth.running.integrity.json_files import with_digest
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.training.courses import tail_of, trajectory_of
from metasynth.training.segmenter_settings import SegmenterSettings

SYNTHESIS = CornucopiaConfig(elastic_nodes=4)


def test_a_cache_that_can_be_used(tmp_path):
    path = make_cache(tmp_path / "c.h5", shape=(16, 24))
    found = check_cache(path, SegmenterSettings())
    assert found.path == path
    assert len(found.digest) == 64


@pytest.mark.parametrize(
    ("options", "levels", "message"),
    [
        (
            {"shape": (16, 20)},
            4,
            "images of 16 x 20 cannot be halved 3 times; expected sizes divisible by 8 for a network of 4 levels",
        ),
        ({"subjects": 2}, 2, "needs at least 3 subjects"),
        ({"subjects": 3}, 2, "expected at least 2 training subjects .*, got 1 of 3 subjects"),
    ],
)
def test_a_cache_that_cannot(tmp_path, options, levels, message):
    path = make_cache(tmp_path / "c.h5", **options)
    with pytest.raises(DataError, match=message) as caught:
        check_cache(path, SegmenterSettings(widths=(2,) * levels))
    assert str(caught.value).startswith(f"{path}: ")


def test_the_data_are_divided_by_subject_and_the_division_is_kept(tmp_path):
    cache = make_cache(tmp_path / "c.h5", subjects=10)
    with session(tmp_path / "run", config=RecoveryConfig(), data=cache) as context:
        data = load_study_data(context, SYNTHESIS, test_repeats=2)
        kept = context.folder.read_json("split.json")
    split = make_split([f"s{i}" for i in range(10)], 0)
    assert data.train.subjects == split.train
    assert data.test.subjects == split.test
    assert kept == split.to_dict()
    assert json.loads((tmp_path / "run" / "split.json").read_text()) == with_digest(split.to_dict())
    assert (data.train.cache.n_classes, data.ndim) == (3, 2)
    assert len(data.test.images) == 2 * 2 * len(split.test)
    assert data.generator.config == SYNTHESIS.at_spacing(3.0)


def test_a_resumed_run_keeps_its_division(tmp_path):
    cache = make_cache(tmp_path / "c.h5", subjects=10)
    with session(tmp_path / "run", config=RecoveryConfig(), data=cache) as context:
        first = load_study_data(context, SYNTHESIS, 1)
        other = make_split([f"s{i}" for i in range(10)], 5)
        assert other.train != first.train.subjects
        context.folder.write_json("split.json", other.to_dict())
    with session(tmp_path / "run", resume=True, config=RecoveryConfig(), data=cache) as context:
        again = load_study_data(context, SYNTHESIS, 1)
    assert again.train.subjects == other.train
    assert again.test.subjects == other.test


def test_blurs_follow_the_finest_spacing(tmp_path):
    cache = make_cache(tmp_path / "c.h5", shape=(16, 16, 16), subjects=5, per_subject=1)
    with session(tmp_path / "run", config=RecoveryConfig(), data=cache) as context:
        data = load_study_data(context, SYNTHESIS, 1)
    assert data.ndim == 3
    assert data.generator.config.gmm_fwhm == pytest.approx(SYNTHESIS.gmm_fwhm / 3)


def test_the_course_of_a_parameter_is_that_of_the_outer_steps_of_its_stage():
    records = [
        {"stage": "a", "step": 1, "inner_loss": 1.0},
        {"stage": "a", "step": 2, "outer_step": 1, "sigma": 0.3},
        {"stage": "b", "step": 2, "outer_step": 1, "sigma": 0.9},
        {"stage": "a", "step": 3, "outer_loss": 1.0},
        {"stage": "a", "step": 4, "outer_step": 2, "sigma": 0.2},
    ]
    assert trajectory_of(records, "a", "sigma") == ([1, 2], [0.3, 0.2])
    assert trajectory_of(records, "c", "sigma") == ([], [])


def test_the_reported_value_is_the_mean_of_the_last_tenth():
    values = np.linspace(0.4, 0.1, 40)
    assert tail_of(list(values)) == (pytest.approx(values[36:].mean()), pytest.approx(values[36:].std()))
    assert tail_of([0.4, 0.3, 0.2]) == (0.2, 0.0)


def test_examples_come_back(tmp_path):
    arrays = {"0.1/real": np.eye(3, dtype=np.float32), "U[0.025, 0.2]/truth": np.arange(4)}
    with session(tmp_path) as context:
        save_examples(context.folder, arrays)
        found = load_examples(context.folder)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("kept", [0, 10, 150, 300])
def test_damaged_examples_are_named(tmp_path, kept):
    folder = SimpleNamespace(path=tmp_path)
    with pytest.raises(DataError, match=r"examples\.npz: cannot be read"):
        load_examples(folder)
    np.savez_compressed(tmp_path / "examples.npz", a=torch.rand(10, 10).numpy())
    content = (tmp_path / "examples.npz").read_bytes()
    (tmp_path / "examples.npz").write_bytes(content[:kept])
    with pytest.raises(DataError, match=r"examples\.npz: cannot be read"):
        load_examples(folder)


@settings(max_examples=60)
@given(position=st.floats(0, 0.9999), value=st.integers(1, 255))
@example(position=0.83203125, value=1)  # the flag of an encrypted file
def test_examples_with_a_changed_byte_are_refused_or_unharmed(tmp_path_factory, position, value):
    path = tmp_path_factory.mktemp("examples") / "examples.npz"
    np.savez_compressed(path, a=np.arange(100.0))
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= value
    path.write_bytes(content)
    with suppress(DataError):
        (found,) = load_examples(SimpleNamespace(path=path.parent)).values()
        assert np.array_equal(found, np.arange(100.0))


@pytest.mark.parametrize(("name", "kind"), [("batched", BatchedGenerator), ("cornucopia", CornucopiaGenerator)])
def test_either_generator_can_be_chosen(tmp_path, name, kind):
    with session(tmp_path / "run", config=RecoveryConfig(), data=make_cache(tmp_path / "c.h5")) as context:
        data = load_study_data(context, SYNTHESIS, 1, name)
        assert type(data.generator) is kind
        assert data.test.images.std() > 0
