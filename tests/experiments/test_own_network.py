"""A network from outside the package is trained by the studies, kept in model files, and segments scans."""

import csv
from importlib.metadata import EntryPoint
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from metasynth.experiments.cross_contrast import EXPERIMENT as CROSS_CONTRAST
from metasynth.experiments.inu import EXPERIMENT as INU
from metasynth.experiments.noise import EXPERIMENT as NOISE
from metasynth.experiments.real_world import EXPERIMENT as REAL_WORLD
from metasynth.experiments.unpaired import EXPERIMENT as UNPAIRED
from support import tiny_comparison, tiny_noise
from support.head_phantom import head_image, head_labels, save
from support.own_network import NETWORK, dilated
from support.own_segmenter import DilatedAttention
from support.tiny_model import CLASSES, describe

from metasynth import plugins
from metasynth.cli.main import main
from metasynth.errors import DataError, PackageError, RunError, UsageError
from metasynth.run import execute
from metasynth.running.settings.described import list_settings
from metasynth.segment import BackboneEntry, Design, from_recipe, load_model, register, save_model, table
from metasynth.segment.built_in import ENTRIES
from metasynth.segment.table import entry_of, names
from metasynth.training.run_sizes import Items, step_bytes
from metasynth.training.segmenter_settings import SegmenterSettings

OWN = {"segmenter.network": "dilated", "segmenter.network_arguments": '{"width": 6}'}
TINY = tiny_comparison.SETTINGS | {"segmenter.steps": "4", "methods": "naive"}
TINY_UNPAIRED = {
    "methods": "naive",
    "segmenter.steps": "4",
    "segmenter.batch_size": "2",
    "outer.warmup": "2",
    "outer.batch_size": "2",
    "synthesis.elastic_nodes": "4",
    "baseline.elastic_nodes": "4",
    "pace.workers": "0",
}
STUDIES = {
    "noise": (NOISE, tiny_noise.SETTINGS | {"sigma": "0.1"}, "sigma=0.1-learn"),
    "inu": (INU, tiny_noise.SETTINGS | {"sigma": "0.1"}, "sigma=0.1-learn"),
    "real_world": (REAL_WORLD, TINY, "naive-last"),
    "cross_contrast": (CROSS_CONTRAST, TINY, "naive-last"),
    "unpaired": (UNPAIRED, TINY_UNPAIRED, "naive"),
}


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(table.TABLE, "_registered", {})


@pytest.fixture
def registered():
    register(NETWORK)


def declared(monkeypatch, value="support.own_network:NETWORK", name="dilated"):
    points = [EntryPoint(name, value, table.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == table.GROUP else [])


def carry_out(experiment, out, cache, settings):
    """Nothing but the network is said of the segmenter: a preset's widths and normalisation are not in its way."""
    own = {key: value for key, value in settings.items() if key != "segmenter.widths"} | OWN
    overrides = [f"{key}={value}" for key, value in own.items()]
    return execute(experiment, out, overrides=overrides, seed=1, data=cache, device="cpu", threads=1, quiet=True)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_trains_it_and_its_model_file_gives_it_back(registered, name, tmp_path, monkeypatch):
    experiment, settings, stage = STUDIES[name]
    cache = tiny_comparison.real_cache(tmp_path / "c.h5", subjects=7)
    if name == "cross_contrast":
        other = tiny_comparison.real_cache(tmp_path / "other.h5", 0.3, subjects=9)
        settings = settings | {"tests": f"other={other}", "labels": str(cache)}
    folder = carry_out(experiment, tmp_path / "run", cache, settings)
    assert folder.results["rows"]
    assert folder.manifest["config"]["segmenter"]["network"] == "dilated"
    model = load_model(folder.path / "models" / f"{stage}.pt")
    assert isinstance(model.network.network, DilatedAttention)
    assert model.network.network.inward.out_channels == 6
    assert model.network.recipe == {
        "kind": "dilated",
        "n_classes": 3,
        "shape": [16, 16],
        "spacing_mm": [3.0, 3.0],
        "widths": [16, 32, 64, 128],
        "norm": "instance",
        "checkpoint": False,
        "network_arguments": {"width": 6},
    }
    assert model.stride is None


def test_it_goes_from_the_command_line_to_label_maps(monkeypatch, tmp_path):
    """By an entry point, and again where the package that declares it is gone."""
    declared(monkeypatch)

    def invoke(*words, code=0):
        result = CliRunner().invoke(main, [*map(str, words)])
        assert result.exit_code == code, result.output
        return result

    cache, run = tiny_noise.make_cache(tmp_path / "c.h5"), tmp_path / "run"
    own = {key.replace(".", "__"): value for key, value in OWN.items()} | {"segmenter__widths": ""}
    invoke(*tiny_noise.arguments(run, cache, seed=1, baselines="false", **own))
    scan, ids = tmp_path / "scan.nii.gz", head_labels(0, (24, 26, 22))
    save(scan, head_image(ids), spacing=(3.0, 3.0, 3.0))
    predict = ("predict", run, scan, "--stripped", "--device", "cpu", "--threads", "1", "--quiet")
    invoke(*predict, "--out", tmp_path / "out")
    found = nib.load(tmp_path / "out" / "scan.nii.gz")
    assert found.shape == ids.shape
    assert np.asanyarray(found.dataobj).max() < 3
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    line = (
        "the network 'dilated' is of a package that is not installed here, which has unet, nnunet, nnunet_residual, "
        "monai"
    )
    told = invoke(*predict, "--out", tmp_path / "again", code=2).stderr.splitlines()
    assert told == [f"Error: {run}/models/sigma=0.1-learn.pt: {line}"]
    assert not (tmp_path / "again").exists()
    told = invoke("run", "noise", "--out", run, "--resume", code=2).stderr.splitlines()
    expected = "expected one of unet, nnunet, nnunet_residual, monai, got 'dilated'"
    assert told[1:] == [f"Error: {run}/config.json: segmenter.network: {expected}"]


def test_what_it_segments_is_scored_where_its_package_is_and_where_it_is_gone(monkeypatch, tmp_path):
    declared(monkeypatch)
    design = Design(4, 2, (32, 32), (1.0, 1.0), torch.Generator().manual_seed(0))
    save_model(tmp_path / "model.pt", entry_of("dilated").made(design), describe())
    ids = head_labels(0, (24, 26, 22))
    save(tmp_path / "scan.nii.gz", head_image(ids))
    words = ("predict", tmp_path / "model.pt", tmp_path / "scan.nii.gz", "--stripped", "--out", tmp_path / "out")
    assert CliRunner().invoke(main, [*map(str, words), "--device", "cpu", "--quiet"]).exit_code == 0
    found = np.asanyarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj)
    truth = np.roll(found, 1, axis=0)
    save(tmp_path / "truth" / "scan.nii.gz", truth)
    dice = {}
    for number, name in enumerate(CLASSES[1:], start=1):
        sizes, common = np.sum(found == number) + np.sum(truth == number), np.sum((found == number) & (truth == number))
        dice[name] = 2 * common / sizes if sizes else None
    assert any(dice.values())

    def scored(name):
        words = ("evaluate", tmp_path / "out", tmp_path / "truth", "--out", tmp_path / name, "--quiet")
        done = CliRunner().invoke(main, [*map(str, words)])
        assert done.exit_code == 0, done.output
        with (tmp_path / name).open(encoding="utf-8") as file:
            return {row["class"]: float(row["dice"]) if row["dice"] else None for row in csv.DictReader(file)}

    assert scored("here.csv") == pytest.approx(dice, abs=1e-5)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    assert scored("gone.csv") == pytest.approx(dice, abs=1e-5)


def test_weights_come_from_the_generator_alone(registered):
    def made(seed):
        design = Design(3, 2, (16, 16), (1.0, 1.0), torch.Generator().manual_seed(seed))
        return NETWORK.made(design).state_dict()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = made(1), made(1), made(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["network.inward.weight"], other["network.inward.weight"])


def test_settings_and_completion_list_it_without_importing_it(monkeypatch):
    declared(monkeypatch, "support.absent:NETWORK")
    by_key = {setting.key: setting for setting in list_settings(NOISE.presets["quick"])}
    assert by_key["segmenter.network"].choices == ("unet", "nnunet", "nnunet_residual", "monai", "dilated")
    assert names() == by_key["segmenter.network"].choices
    completion = ShellComplete(main, {}, "metasynth", "_METASYNTH_COMPLETE")
    found = completion.get_completions(["run", "noise", "--set"], "segmenter.network=d")
    assert [item.value for item in found] == ["segmenter.network=dilated"]
    words = ["settings", "noise"]
    assert "(one of unet, nnunet, nnunet_residual, monai, dilated)" in CliRunner().invoke(main, words).stdout


@pytest.mark.parametrize(
    ("value", "name", "line"),
    [
        (
            "support.absent:A",
            "a",
            "network 'a' (support.absent:A) cannot be loaded: ModuleNotFoundError: No module named 'support.absent'",
        ),
        (
            "support.own_network:dilated",
            "a",
            "network 'a' (support.own_network:dilated) is a function, no BackboneEntry",
        ),
        (
            "support.own_network:NETWORK",
            "a",
            "network 'a' (support.own_network:NETWORK) has the name 'dilated'; its entry point must have it too",
        ),
    ],
)
def test_an_entry_point_that_gives_none(monkeypatch, tmp_path, value, name, line):
    declared(monkeypatch, value, name)
    cache = tiny_noise.make_cache(tmp_path / "c.h5")
    words = tiny_noise.arguments(tmp_path / "run", cache, segmenter__network=name, segmenter__widths="")
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stderr.splitlines()[1:]) == (1, [f"Error: {line}"])
    with pytest.raises(RunError) as refused:
        from_recipe({"kind": name})
    assert str(refused.value) == line


def test_names_that_are_taken_unknown_or_none():
    for act, line in (
        (lambda: register(entry_of("unet")), "network 'unet': the name is taken"),
        (lambda: BackboneEntry("a/b", "", dilated), "name of a network: expected letters, digits, '_' and '-', got "
         "'a/b'"),
        (lambda: entry_of("resnet"), "unknown network 'resnet': expected one of unet, nnunet, nnunet_residual, monai"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as refused:
            act()
        assert str(refused.value) == line


def broken(given):
    raise TypeError("no such thing\nat all")


def unlike(given):
    raise ValueError("width: expected a multiple of 2, got 3")


def refusing(settings):
    raise ValueError("network_arguments: expected a width, got none")


OTHER_SHAPE = torch.nn.Conv2d(1, 3, 3)


@pytest.mark.parametrize(
    ("entry", "error", "line"),
    [
        (BackboneEntry("own", "own", broken), RunError, "network 'own' cannot be made: TypeError: no such thing"),
        (
            BackboneEntry("own", "own", unlike),
            UsageError,
            "network 'own' cannot be made: width: expected a multiple of 2, got 3",
        ),
        (
            BackboneEntry("own", "own", dilated, check=broken),
            RunError,
            "network 'own' cannot check its settings: TypeError: no such thing",
        ),
        (
            BackboneEntry("own", "own", dilated, fits=broken),
            RunError,
            "network 'own' cannot check its images: TypeError: no such thing",
        ),
        (
            BackboneEntry("own", "own", lambda design: 3),
            RunError,
            "network 'own' cannot be made: got a int, no torch.nn.Module",
        ),
        (
            BackboneEntry("own", "a title", lambda design: OTHER_SHAPE),
            DataError,
            "{cache}: images of 16 x 16 cannot go through the network own (a title): Conv2d: expected logits "
            "(2, 3, 16, 16) from it, got (2, 3, 14, 14)",
        ),
        (
            BackboneEntry("own", "own", dilated, check=refusing),
            UsageError,
            "--set segmenter.network: network_arguments: expected a width, got none",
        ),
    ],
)
def test_a_network_that_is_wrong_is_refused_before_its_folder_is_made(tmp_path, entry, error, line):
    register(entry)
    cache = tiny_noise.make_cache(tmp_path / "c.h5")
    with pytest.raises(error) as refused:
        execute(NOISE, tmp_path / "run", overrides=["segmenter.network=own"], data=cache, device="cpu", quiet=True)
    assert str(refused.value) == line.format(cache=cache)
    assert not (tmp_path / "run").exists()


class OnNumbers(torch.nn.Module):
    """Its shapes cannot be followed without computing; it says what sizes have to be multiples of."""

    stride = 4

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 3, 1)

    def forward(self, images):
        if images.device.type == "meta":
            raise KeyError("no numbers")
        return self.layer(images)


def test_a_network_that_computes_with_numbers_says_its_stride():
    entry = BackboneEntry("own", "own", lambda design: OnNumbers())
    design = Design(3, 2, (8, 8), (1.0, 1.0))
    entry.check_images(design)
    assert entry.made(design).stride == (4, 4)
    register(entry)
    assert step_bytes(SegmenterSettings(network="own"), Items(3, (8, 8), (1.0, 1.0), (2,), 3), 4) == 0


def test_a_missing_package_is_told_for_a_recipe():
    with pytest.raises(PackageError, match=r"^the network 'dilated' is of a package that is not installed here, which"):
        from_recipe({"kind": "dilated"})


def test_documentation_lists_the_table():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "networks.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[:2] for line in page.partition("```")[0].splitlines() if line.startswith("| `")]
    told = {cell.removeprefix("| ").split("`")[1]: title for cell, title in rows}
    assert {entry.name: told[entry.name] for entry in ENTRIES} == {entry.name: entry.title for entry in ENTRIES}
