"""prep priors: from a cache to a file of priors, and the table of what is in it."""

import json

import pytest
from click.testing import CliRunner
from support.tiny_comparison import real_cache

from metasynth.cli.main import main
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.synthesis import read_priors
from metasynth.training.priors import estimate_from


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return real_cache(tmp_path / "scans.h5", subjects=4, generation=True)


def prep(*arguments: str):
    return CliRunner().invoke(main, ["prep", "priors", *arguments])


def test_everyone_s_images_are_estimated_from_and_the_table_is_shown(cache):
    done = prep("scans.h5", "--out", "priors.json")
    assert (done.exit_code, done.stderr) == (0, "")
    with Cache(cache) as opened:
        expected = estimate_from(SliceDataset(opened, opened.subjects)).priors
        origin = {"cache": "scans.h5", "digest": opened.info.digest, "subjects": ["s0", "s1", "s2", "s3"]}
    assert read_priors(cache.with_name("priors.json")) == expected
    assert json.loads(cache.with_name("priors.json").read_text())["from"] == origin
    head, _, fluid, cortex, *_, empty, last = done.stdout.splitlines()
    assert head.replace(" ", "") == "|structure|class|mean|spread|texture|people|voxels|edgesleftout|cut|"
    own = expected.labels[2]
    cells = [cell.strip() for cell in cortex.split("|")[1:-1]]
    assert cells[:6] == ["cortex", "grey matter", f"{own.mean:.3f}", f"{own.spread:.3f}", f"{own.texture:.3f}", "4"]
    assert (fluid.split()[1], empty) == ("fluid", "")
    assert last == "Priors: priors.json (4 subjects, fields of 0% to 0% taken off)"


def test_of_some_subjects_alone(cache):
    assert prep("scans.h5", "--out", "priors.json", "--subjects", "s2, s0").exit_code == 0
    value = json.loads(cache.with_name("priors.json").read_text())
    assert value["from"]["subjects"] == ["s2", "s0"]
    assert [label["people"] for label in value["labels"]] == [0, 2, 2, 2, 2]


def test_a_file_is_replaced_only_if_that_is_asked_for(cache):
    assert prep("scans.h5", "--out", "priors.json").exit_code == 0
    before = cache.with_name("priors.json").read_bytes()
    again = prep("scans.h5", "--out", "priors.json", "--subjects", "s0")
    assert again.exit_code == 2
    assert again.stderr == "Error: --out priors.json: exists already; give another name or --overwrite\n"
    assert cache.with_name("priors.json").read_bytes() == before
    assert prep("scans.h5", "--out", "priors.json", "--subjects", "s0", "--overwrite").exit_code == 0
    assert read_priors(cache.with_name("priors.json")).spread == (0, 0, 0, 0, 0)
