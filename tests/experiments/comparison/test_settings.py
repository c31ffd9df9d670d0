"""Settings of a comparison that cannot be, and how subjects are counted."""

import pytest
from metasynth.experiments.comparison.settings import SIZES, ComparisonConfig
from metasynth.experiments.real_images.settings import SubjectSettings

from metasynth.errors import UsageError
from metasynth.running.settings.config import apply_overrides, from_dict, to_dict
from metasynth.running.settings.renamed import all_renewed


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("methods=naive,finetund", "unknown method 'finetund': did you mean 'finetuned'"),
        ("methods=interpolated,naive", "interpolated is made from finetuned; list it too"),
        ("methods=naive,optimised", "optimised trains with what a variant learned"),
        ("methods=naive,naive", "each once"),
        ("mixed.fraction=1", "fraction must be between 0 and 1, got 1.0"),
        ("interpolations=0.5,1.5", "interpolations must list at least one weight in"),
        ("subjects.train=-1", "train must list at least one number >= 0"),
        ("tests=here", "must be NAME=PATH"),
        ("tests=test=a.h5", "domain and the names of tests must be different"),
        ("segmenter.steps=100", r"outer.warmup \+ outer.horizon must be at most segmenter.steps = 100, got 300 \+ 60"),
        (
            "segmenter.steps=100 methods=parametric_fixed outer.horizon=1 outer.mean_of=1",
            "outer.warmup, every and average must leave an outer step in segmenter.steps = 100",
        ),
        (
            "segmenter.steps=100 methods=synthesis_random outer_synthesis.horizon=1 outer_synthesis.mean_of=1",
            "outer_synthesis.warmup, every and average must leave an outer step in segmenter.steps = 100",
        ),
        ("clustered.clusters=1", "clusters and nodes must be at least 2"),
        ("learned.start=0", "start"),
        ("learned.start_blur=0", "learned.start_blur: blur: must be finite and at least 1.18e-38 "),
        ("learned.start_gamma=-1", "learned.start_gamma: gamma: must be finite and at least 1.18e-38 "),
        ("learned.random_share=1", "learned.random_share: random_share: must be at least 0 and less than 1, got 1.0"),
        ("select_every=0", "select_every must be at least 1"),
        ("own_labels=1", "own_labels must be at least 0 and less than 1, got 1.0"),
        ("own_labels=-0.1", "own_labels must be at least 0 and less than 1, got -0.1"),
    ],
)
def test_settings_out_of_range(setting, message):
    with pytest.raises(UsageError, match=message):
        apply_overrides(ComparisonConfig(**SIZES["quick"]), setting.split())


def test_subjects_are_a_fifth_where_no_number_is_given():
    assert SubjectSettings().counts(30) == (6, 6)
    assert SubjectSettings().counts(3) == (1, 1)
    assert SubjectSettings(validation=2, test=3).counts(10) == (2, 3)


def test_settings_are_written_and_read():
    config = apply_overrides(ComparisonConfig(**SIZES["paper"]), ["tests=a=/x/a.h5,b=b=c.h5", "subjects.train=1,0"])
    assert config.test_paths["b"].name == "b=c.h5"
    assert from_dict(ComparisonConfig, to_dict(config)) == config
    with pytest.raises(UsageError, match="tests"):
        from_dict(ComparisonConfig, {**to_dict(config), "tests": [3]})


def test_records_from_before_there_was_a_learned_synthesis_mean_what_they_did():
    config = ComparisonConfig()
    recorded = to_dict(config)
    old = {name: recorded["learned"][name] for name in ("start", "start_c", "nodes", "network")}
    # Whatever a synthesis had learned then was of images of one strength, and of all structures together.
    # It had the one outer problem that there was.
    then = {"start_blur": 0.4, "varying": 0.0, "by_structure": False}
    expected = {**recorded, "learned": {**recorded["learned"], **then}, "outer_synthesis": recorded["outer"]}
    before = {name: value for name, value in recorded.items() if name != "outer_synthesis"}
    assert all_renewed(config, {**before, "learned": old}) == expected


def test_records_from_before_own_label_maps_served_are_of_none():
    recorded = to_dict(ComparisonConfig())
    del recorded["own_labels"]
    assert from_dict(ComparisonConfig, recorded) == ComparisonConfig(own_labels=0.0)


def test_optimised_needs_nothing_learned_where_a_file_is_named():
    settings = ["methods=optimised", "learned.frozen=x.augmenter"]
    assert apply_overrides(ComparisonConfig(**SIZES["quick"]), settings).learned.frozen == "x.augmenter"
