"""The noise study at a size that takes seconds, through the command line."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.tiny_noise import CLASSES, SETTINGS, STEPS, WARMUP, arguments, make_cache, results

from metasynth.cli.main import main
from metasynth.data.cache import Cache
from metasynth.segment.model_file import find_model, load_model

LABELS = ("0.05", "U[0.025, 0.2]")
ASKED = {"sigma": "0.05,0.025:0.2", "start": "0.3"}


def metasynth(*command):
    done = CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def cache(folder):
    return make_cache(folder / "labels.h5")


@pytest.fixture(scope="module")
def run(folder, cache):
    metasynth(*arguments(folder / "run", cache, seed=3, **ASKED))
    return folder / "run"


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_was_asked_for_is_in_the_manifest(run):
    manifest = json.loads((run / "config.json").read_text())
    assert (manifest["experiment"], manifest["preset"], manifest["seed"]) == ("noise", "quick", 3)
    config = manifest["config"]
    assert config["sigma"] == [0.05, [0.025, 0.2]]
    assert config["start"] == 0.3
    assert config["segmenter"]["widths"] == [4, 8]
    assert json.loads((run / "split.json").read_text())["seed"] == 3
    assert json.loads((run / "results.json").read_text())["seed"] == 3


def test_rows_have_every_field(run):
    found = json.loads((run / "results.json").read_text())
    assert {"experiment", "preset", "seed", "device", "wall_s", "rows", "reference"} == set(found)
    assert found["reference"]["table_1"][2] == 0.098
    rows = found["rows"]
    assert [(row["model"], row["sigma_true"]) for row in rows] == [
        (model, sigma) for sigma in (0.05, [0.025, 0.2]) for model in "NLO"
    ]
    for row in rows:
        fields = {
            "model",
            "augmenter",
            "sigma_true",
            "sigma_learned",
            "sigma_sd",
            "sigma_train",
            "steps",
            "wall_s",
            "dice",
        }
        assert set(row) == fields
        assert row["steps"] == STEPS
        assert row["wall_s"] > 0
        assert list(row["dice"]) == ["0", "0.1"]
        for dice in row["dice"].values():
            assert list(dice["per_class"]) == list(CLASSES)
            assert len(dice["per_subject"]) == 1
            assert dice["mean"] == pytest.approx(np.mean([dice["per_class"][name] for name in CLASSES[1:]]))
            assert 0 <= dice["mean"] <= 1
        learned = row["sigma_learned"]
        assert row["sigma_train"] == {"N": row["sigma_true"], "L": None, "O": learned}[row["model"]]


def test_the_learned_value_is_the_mean_of_the_last_tenth_of_the_outer_steps(folder, cache):
    run = folder / "longer"
    metasynth(*arguments(run, cache, baselines="false", segmenter__steps="35", outer__every="1"))
    course = [record["sigma"] for record in records(run) if "outer_step" in record]
    assert len(course) == 35 - WARMUP == 30
    last = course[-3:]
    (row,) = results(run)["rows"]
    assert row["model"] == "L"
    assert row["sigma_learned"] == pytest.approx(np.mean(last), rel=1e-12)
    assert row["sigma_sd"] == pytest.approx(np.std(last), rel=1e-9)
    assert np.std(last) > 0


def test_every_step_of_every_stage_is_recorded(run):
    stages = [f"sigma={label}/{stage}" for label in LABELS for stage in ("learn", "naive", "optimised")]
    assert [(r["stage"], r["step"]) for r in records(run)] == [(s, n) for s in stages for n in range(1, STEPS + 1)]
    kept = [path.relative_to(run / "checkpoints").as_posix() for path in (run / "checkpoints").glob("*/*")]
    assert sorted(kept) == sorted(f"{stage.replace('/', '-')}/final.pt" for stage in stages)


def test_the_first_losses_of_a_level_are_of_the_same_images(run):
    first = {record["stage"]: record["inner_loss"] for record in records(run) if record["step"] == 1}
    naive, optimised = (first[f"sigma={LABELS[0]}/{stage}"] for stage in ("naive", "optimised"))
    assert naive == pytest.approx(optimised, rel=0.2)
    assert naive != optimised
    again = [first[f"sigma={label}/learn"] for label in LABELS]
    assert again[0] == again[1]  # same start, same weights, same label maps and noise-free images


def test_tables(run):
    markdown = (run / "table.md").read_text()
    for heading in ("preset σ", "learned σ", "absolute error", "paper (full scale)", "test 0.1", "white matter"):
        assert heading in markdown
    for row in results(run)["rows"]:
        assert f"{row['sigma_learned']:.3f}" in markdown
        assert f"{row['dice']['0.1']['mean']:.3f}" in markdown
    rows = list(csv.DictReader((run / "table.csv").read_text().splitlines()))
    assert rows
    assert str(results(run)["rows"][0]["sigma_learned"]) in (run / "table.csv").read_text()


def test_figures(run):
    assert {path.name for path in (run / "figures").iterdir()} == {
        f"{name}.png" for name in ("sigma", "images", "segmentation", "dice")
    }
    for path in (run / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


class Addresses(HTMLParser):
    """What a page would fetch or lead to."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_needs_nothing_else(run):
    page = (run / "report.html").read_text()
    addresses = Addresses(page).found
    assert len(addresses) >= 4
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!data:)|<script|<link", page)
    for label in LABELS:
        assert f"σ {label}" in page or f"sigma {label}" in page
    assert "started at sigma = 0.3" in page


def test_the_segmenters_are_kept_for_use(run, cache):
    stages = [f"sigma={label}/{stage}" for label in LABELS for stage in ("learn", "naive", "optimised")]
    assert sorted(path.stem for path in (run / "models").iterdir()) == sorted(s.replace("/", "-") for s in stages)
    for stage in stages:
        model = load_model(find_model(run, stage))
        assert model.description.class_names == CLASSES
        assert dict(model.description.provenance) == {"experiment": "noise", "stage": stage, "seed": 3}
    with np.load(run / "examples.npz") as shown, Cache(cache) as opened:
        assert model.description.shape == opened.shape
        image = torch.from_numpy(shown["U[0.025, 0.2]/real"])
        labels = model.network(image[None, None]).argmax(1)[0]
        assert (labels.numpy() == shown["U[0.025, 0.2]/O"]).all()


def test_a_report_is_made_again(run):
    made = [run / "table.csv", run / "table.md", run / "report.html", *(run / "figures").iterdir()]
    before = {path: path.read_bytes() for path in made}
    kept = {path: path.read_bytes() for path in (run / "results.json", run / "metrics.jsonl", run / "examples.npz")}
    for path in made:
        path.unlink()
    done = metasynth("report", run)
    assert done.stdout.rstrip().endswith(f"Report: {run / 'report.html'}")
    assert {path: path.read_bytes() for path in made} == before
    assert {path: path.read_bytes() for path in kept} == kept


def test_the_same_seed_gives_the_same_numbers_whatever_images_the_cache_holds(run, folder):
    """The study makes its real images itself, so that a cache of labels alone serves it as well."""
    cache, again = make_cache(folder / "images.h5", images=True), folder / "again"
    metasynth(*arguments(again, cache, seed=3, **ASKED, baselines="false"))
    assert results(again)["rows"] == [row for row in results(run)["rows"] if row["model"] == "L"]
    assert records(again) == [record for record in records(run) if record["stage"].endswith("/learn")]
    assert (again / "figures" / "segmentation.png").is_file()


def test_another_seed_gives_other_numbers(run, folder, cache):
    metasynth(*arguments(folder / "other", cache, seed=4, **ASKED | {"sigma": "0.05"}, baselines="false"))
    assert records(folder / "other")[0]["inner_loss"] != records(run)[0]["inner_loss"]
    assert results(folder / "other")["rows"][0]["sigma_learned"] != results(run)["rows"][0]["sigma_learned"]


def test_volumes(folder):
    cache = make_cache(folder / "volumes.h5", shape=(16, 16, 16), per_subject=1)
    small = {"segmenter.widths": "2,4", "segmenter.batch_size": "1", "segmenter.steps": "9", "outer.batch_size": "1"}
    done = metasynth(*arguments(folder / "volumes", cache, **SETTINGS | small))
    assert "learned σ" in done.stdout
    rows = results(folder / "volumes")["rows"]
    assert [row["model"] for row in rows] == ["N", "L", "O"]
    assert all(dice["mean"] is not None for row in rows for dice in row["dice"].values())
    with np.load(folder / "volumes" / "examples.npz") as examples:
        assert {examples[name].shape for name in examples.files} == {(16, 16)}
    assert {path.stem for path in (folder / "volumes" / "figures").iterdir()} >= {"images", "segmentation"}
