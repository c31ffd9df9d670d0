import json

import pytest
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.experiments.noise import EXPERIMENT, LEVELS, PRESETS, NoiseConfig

from metasynth.augment.noise import NoiseLevel
from metasynth.errors import UsageError
from metasynth.report.published import NOISE_ONLY
from metasynth.running.settings.config import apply_overrides, from_dict, to_dict
from metasynth.running.study import discover_experiments, load_experiment
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings


def test_the_study_is_found_by_its_name():
    assert discover_experiments()["noise"].load() is load_experiment("noise") is EXPERIMENT
    assert EXPERIMENT.name == "noise"
    assert "\n" not in EXPERIMENT.question


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back_from_json(name):
    written = json.loads(json.dumps(to_dict(PRESETS[name]), allow_nan=False))
    assert from_dict(NoiseConfig, written) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_a_cohort_and_take_outer_steps(name):
    config = PRESETS[name]
    assert config.cohort in COHORTS
    assert config.outer.outer_steps(config.segmenter.steps) >= 100
    assert all((level.low + level.high) / 2 < config.start for level in config.sigma)  # sigma has to be found, not kept


def test_the_presets_are_those_of_the_design():
    assert list(PRESETS) == ["quick", "standard", "paper", "quick-3d"]
    assert [level.label for level in PRESETS["quick"].sigma] == ["0.1"]
    for name in ("standard", "paper"):
        assert PRESETS[name].sigma == PRESETS[name].test == LEVELS
        assert PRESETS[name].baselines
    paper = PRESETS["paper"].segmenter
    assert (paper.widths, paper.norm, paper.batch_size, paper.lr) == ((16, 32, 64, 128), "none", 64, 1e-3)


def test_the_published_tables_have_a_value_for_every_level():
    assert NOISE_ONLY["levels"] == ["0", "0.05", "0.1", "0.15", "U[0.025, 0.2]"]
    assert len(NOISE_ONLY["table_1"]) == 5
    for rows in NOISE_ONLY["table_2"].values():
        assert [len(row) for row in rows] == [5] * 5
    assert list(NOISE_ONLY["table_2"]) == ["N", "L", "O"]
    assert NOISE_ONLY["table_1"][2] == 0.098
    assert NOISE_ONLY["table_2"]["N"][0] == [0.913, 0.310, 0.209, 0.142, 0.205]


def test_settings_from_the_command_line():
    config = apply_overrides(PRESETS["quick"], ["sigma=0.05", "start=0.4", "outer.lr=0.01", "segmenter.widths=4,8"])
    assert config.sigma == (NoiseLevel(0.05, 0.05),)
    assert (config.start, config.outer.lr, config.segmenter.widths) == (0.4, 0.01, (4, 8))
    several = apply_overrides(config, ["sigma=0, 0.1,0.025:0.2"])
    assert [level.label for level in several.sigma] == ["0", "0.1", "U[0.025, 0.2]"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sigma=0.1,0.10", r"sigma must list at least one noise level, each once, got \['0.1', '0.1'\]"),
        ("test=", "test must list at least one noise level"),
        ("sigma=0.2:0.1", "low 0.2, high 0.1"),
        ("sigma=-0.1", "sigma: .* got low -0.1"),
        ("sigma=much", "got 'much'"),
        ("start=0", "start must be a positive number, got 0"),
        ("start=nan", "start: expected a finite number, got 'nan'"),
        ("test_repeats=0", "test_repeats must be at least 1, got 0"),
        ("cohort=template-65", "cohort: expected one of template-64, template-96, template-192"),
        ("outer.average=1000000", "outer.average must leave an outer step in segmenter.steps = .*, got 1000000"),
        ("segmenter.widths=0,8", "widths must be at least 1, got 0"),
        ("synthesis.zooms=2", "zooms: must be less than 1, got 2.0"),
    ],
)
def test_settings_out_of_range_are_refused(override, message):
    with pytest.raises(UsageError, match=message):
        apply_overrides(PRESETS["quick"], [override])


def test_a_warmup_must_leave_steps():
    with pytest.raises(ValueError, match=r"outer\.warmup must be below segmenter\.steps = 50, got 50"):
        NoiseConfig(segmenter=SegmenterSettings(steps=50), outer=OuterSettings(warmup=50))


def test_a_matched_reference_needs_the_batched_generator():
    with pytest.raises(ValueError, match=r"outer\.reference = matched needs generator = batched, got cornucopia"):
        NoiseConfig(outer=OuterSettings(reference="matched"), generator="cornucopia")
