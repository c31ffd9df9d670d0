"""A synthesis that is learned in a comparison: from both starts, from what priors, and with a random share."""

import json

import numpy as np
import pytest
from metasynth.experiments.real_world import EXPERIMENT
from support.tiny_comparison import carry_out, real_cache, results
from support.tiny_noise import STRUCTURES

from metasynth.augment.random_share import RandomShare
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.running.records import RunFolder
from metasynth.synthesis.parts.steps import Steps
from metasynth.synthesis.priors.priors_file import read_priors
from metasynth.training.augmenter_file import augmenter_name, load_augmenter
from metasynth.training.priors import estimate_from

METHODS = "synthesis_random,synthesis_estimated,optimised,unlearned"
STRENGTHS = {"spread", "texture", "offset", "grain", "blur", "sigma", "c_low", "c_mid", "c_high", "gamma"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("fine") / "fine.h5", subjects=6, generation=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("synthesis") / "run"
    carry_out(EXPERIMENT, run, cache, methods=METHODS, learned__random_share="0.25")
    return run


def test_strengths_are_learned_from_both_starts_and_trained_with_again(run):
    rows = {row["method"]: row for row in results(run) if row["checkpoint"] == "last"}
    assert set(rows["synthesis_estimated"]["learned"]) == STRENGTHS
    assert set(rows["synthesis_random"]["learned"]) == STRENGTHS - {"offset"}  # all have one mean
    for name in ("synthesis_random", "synthesis_estimated"):
        starts = {"blur": 0.4, "sigma": 0.1, "gamma": 0.2} | dict.fromkeys(("c_low", "c_mid", "c_high"), 0.3)
        moved = {key: abs(value - starts.get(key, 1)) for key, value in rows[name]["learned"].items()}
        assert min(moved.values()) > 1e-4, name
    assert rows["optimised"]["augmenter"] == rows["unlearned"]["augmenter"]
    assert rows["optimised"]["augmenter"] in rows
    assert "Learn2Synth, synthesis, from estimated contrasts" in (run / "table.md").read_text()


def test_intensities_as_learned_are_kept_and_shown_beside_the_scans(run, cache):
    rows = {row["method"]: row for row in results(run) if row["checkpoint"] == "last"}
    assert rows["synthesis_estimated"]["learned_priors"] == "learned/n=2-synthesis_estimated.priors.json"
    kept = read_priors(run / rows["synthesis_estimated"]["learned_priors"])
    learned = load_augmenter(run / augmenter_name("n=2/synthesis_estimated")).augmenter.priors()
    estimated = read_priors(run / "priors.json")
    # Up to one scale and one offset what was learned, and so chosen as to lie close to the scans.
    scale, offset = np.polyfit(learned.mean[1:], kept.mean[1:], 1)
    assert kept.mean[1:] == pytest.approx(scale * np.array(learned.mean[1:]) + offset, abs=1e-6)
    assert kept.texture[1:] == pytest.approx(scale * np.array(learned.texture[1:]), abs=1e-6)
    assert np.mean(kept.mean[1:]) == pytest.approx(np.mean(estimated.mean[1:]), abs=0.01)
    assert kept.mean[1:] != pytest.approx(estimated.mean[1:], abs=1e-4)
    origin = json.loads((run / rows["synthesis_estimated"]["learned_priors"]).read_text())["from"]
    assert origin == json.loads((run / "priors.json").read_text())["from"]
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert {"priors", "n=2-synthesis_estimated.priors", "n=2-synthesis_random.priors"} <= figures
    again = run.parent / "again-from-it"
    carry_out(
        EXPERIMENT,
        again,
        cache,
        methods="naive",
        baseline__priors=str(run / rows["synthesis_estimated"]["learned_priors"]),
    )


def test_the_report_shows_the_image_before_and_after_its_field(run):
    with np.load(run / "examples.npz") as shown:
        parts = [name.rsplit("/", 1)[1] for name in shown.files if name.startswith("augmentation/synthesis_estimated")]
        assert parts == ["synthetic", "field", "noise", "augmented"]
    assert {"augmentation", "sigma"} <= {path.stem for path in (run / "figures").iterdir()}


def test_a_run_interrupted_while_it_learns_ends_as_one_that_was_not(run, cache, tmp_path, monkeypatch):
    append = RunFolder.append

    def stopping(folder, record):
        if record["stage"] == "n=2/synthesis_estimated" and record["step"] == 5:
            raise KeyboardInterrupt
        append(folder, record)

    again, settings = tmp_path / "again", {"methods": METHODS, "learned__random_share": "0.25"}
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            carry_out(EXPERIMENT, again, cache, **settings)
    carry_out(EXPERIMENT, again, cache, resume=True, **settings)
    assert results(again) == results(run)
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_training_makes_no_image_that_nobody_looks_at(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(Steps, "imaged", None)
    carry_out(EXPERIMENT, tmp_path / "run", cache, methods=METHODS, segmenter__steps="4")
    assert len(results(tmp_path / "run")) == 2 * 4 + 2  # and the chosen one


def test_priors_are_those_of_the_people_that_are_learned_from(cache, tmp_path, monkeypatch):
    run = tmp_path / "run"
    carry_out(EXPERIMENT, run, cache, methods="synthesis_estimated", learned__random_share="0.5", segmenter__steps="4")
    augmenter = load_augmenter(run / augmenter_name("n=2/synthesis_estimated")).augmenter
    assert isinstance(augmenter, RandomShare)
    people = json.loads((run / "split.json").read_text())["train"][:2]
    with Cache(cache) as opened:
        real = SliceDataset(opened, people).read(range(4))
        found = estimate_from(SliceDataset(opened, people)).priors
    for k in (1, 2, 3, 4):
        median = real.images[:, 0][real.structures == k].median().item()
        assert found.mean[k] == pytest.approx(median, abs=0.03)
        assert augmenter.learned.mean[k - 1].item() == pytest.approx(found.mean[k])
    assert augmenter.learned.texture.tolist() == pytest.approx(found.texture[1:])
    assert augmenter.random.mean.tolist() == [0.5] * 4
    assert results(run)[0]["priors"] == "priors.json"
    assert [label["mean"] for label in json.loads((run / "priors.json").read_text())["labels"]] == list(found.mean)
    assert (run / "figures" / "priors.png").is_file()


def test_what_was_learned_is_trained_with_again_by_a_later_run(run, cache, tmp_path):
    kept = run / augmenter_name("n=2/synthesis_estimated")
    learned = load_augmenter(kept)
    assert f"  {augmenter_name('n=2/synthesis_estimated')}\n" in (run / "SHA256SUMS").read_text()
    assert (learned.name, learned.labels, learned.ndim) == ("synthesis_estimated", STRUCTURES, 2)
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "outer_step" in line]
    course = [record for record in last if record["stage"] == "n=2/synthesis_estimated"]
    for name, value in learned.augmenter.observed().items():
        assert value == pytest.approx(course[-1][name], rel=1e-6)
    again = tmp_path / "again"
    carry_out(EXPERIMENT, again, cache, methods="optimised", learned__frozen=str(kept))
    rows = results(again)
    assert [(row["method"], row["augmenter"]) for row in rows] == [("optimised", "synthesis_estimated")] * 2
    others = json.loads((again / "config.json").read_text())["data"]["others"]
    assert others["learned.frozen"]["path"] == str(kept)
    carry_out(EXPERIMENT, again, cache, methods="optimised", learned__frozen=str(kept), resume=True)
    assert results(again) == rows


def test_a_run_trained_with_an_own_file_gives_what_one_with_the_variant_itself_gives(cache, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    carry_out(EXPERIMENT, first, cache, methods="synthesis_random,optimised", learned__random_share="0.5")
    kept = first / augmenter_name("n=2/synthesis_random")
    carry_out(EXPERIMENT, second, cache, methods="optimised", learned__frozen=str(kept))
    ours, theirs = ([r for r in results(one) if r["method"] == "optimised"] for one in (first, second))
    assert ours == theirs


def test_priors_of_a_file_are_where_it_starts(run, cache, tmp_path):
    priors = json.loads((run / "priors.json").read_text())
    priors["labels"][3]["mean"] = 0.123
    (tmp_path / "own.json").write_text(json.dumps(priors))
    settings = {"synthesis__priors": str(tmp_path / "own.json"), "segmenter__steps": "4"}
    carry_out(EXPERIMENT, tmp_path / "run", cache, methods="synthesis_estimated", **settings)
    found = load_augmenter(tmp_path / "run" / augmenter_name("n=2/synthesis_estimated")).augmenter
    assert found.mean[2].item() == pytest.approx(0.123)
    assert "priors" not in results(tmp_path / "run")[0]
    assert not (tmp_path / "run" / "priors.json").exists()


def test_it_is_learned_over_windows_of_several_steps(cache, tmp_path):
    settings = {"outer__horizon": "2", "outer__mean_of": "2", "learned__random_share": "0.25"}
    carry_out(EXPERIMENT, tmp_path / "run", cache, methods="synthesis_estimated", **settings)
    (row, _) = results(tmp_path / "run")
    assert set(row["learned"]) == STRENGTHS
    assert abs(row["learned"]["spread"] - 1) > 1e-4


def test_the_share_out_of_range_is_refused_before_anything_is_done(tmp_path, cache):
    with pytest.raises(
        ValueError, match=r"learned\.random_share: random_share: must be at least 0 and less than 1, got 1\.0$"
    ):
        carry_out(EXPERIMENT, tmp_path / "run", cache, methods=METHODS, learned__random_share="1")
    assert not (tmp_path / "run").exists()
