"""Models that come with the package: found as its data, listed with their cards, and used where none is named."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.tiny_model import describe, random_unet, save_random

from metasynth.cli.main import main
from metasynth.predict import shipped
from metasynth.segment.model_file import load_model, model_path, save_model

HEAD = {"brain_only": False, "scaled_by": "head"}


def card(takes, **changed):
    return {
        "takes": takes,
        "summary": f"Three shades of {takes}s",
        "data": "none",
        "licence": "MIT",
        "command": "make models",
        "seed": 0,
        "training_time": "none",
        "dice": {"phantoms": {"dark": 0.5, "bright": 0.75}},
        "not_for": "anything",
    } | changed


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a model of brains and one of heads, and a folder to work in."""
    folder = tmp_path / "package"
    for seed, (name, described) in enumerate((("brain", {}), ("head", HEAD))):
        save_random(folder / f"{name}.pt", seed=seed, **described)
        (folder / f"{name}.json").write_text(json.dumps(card(name)))
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def scans(tmp_path):
    at = np.moveaxis(np.indices((20, 24, 22)), 0, -1) / (20, 24, 22)
    ball = np.linalg.norm(at - 0.5, axis=-1) < 0.4
    image = np.where(ball, 50 + 50 * at[..., 0], 0).astype(np.float32)
    for folder, data in (("scans", image), ("masks", ball.astype(np.uint8))):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / folder / "s0.nii.gz")


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def predicted(*arguments):
    """The model that scans were segmented with."""
    result = run("predict", *arguments, "--out", "out", "--overwrite", "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    return next(line for line in result.stderr.splitlines() if line.startswith("Model: ")).split(",")[0][7:]


def refused(*arguments, code=2):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def test_the_fitting_model_is_used_where_none_is_named(package, scans):
    assert predicted("scans") == str(package / "head.pt")
    assert predicted("scans/s0.nii.gz") == str(package / "head.pt")
    assert predicted("scans", "--masks", "masks") == str(package / "brain.pt")
    assert predicted("scans", "--stripped") == str(package / "brain.pt")


def test_a_model_is_named_by_name_file_or_run(package, scans, tmp_path):
    assert predicted("scans", "--model", "brain", "--masks", "masks") == str(package / "brain.pt")
    save_random(tmp_path / "mine.pt", seed=3)
    assert predicted("scans", "--model", "mine.pt", "--stripped") == "mine.pt"
    save_random(model_path(tmp_path / "run", "learn"), seed=4)
    for arguments in (("scans", "--model", "run"), ("run", "scans"), ("run", "scans", "--stage", "learn")):
        assert predicted(*arguments, "--stripped") == "run/models/learn.pt"
    assert predicted("mine.pt", "scans", "--stripped") == "mine.pt"


def test_a_model_that_there_is_not(package, scans):
    line = refused("predict", "scans", "--model", "heads", "--out", "o")
    assert line == "heads: there is no such model file or folder of a run, nor one of the package (brain, head)"
    (package / "head.pt").unlink()
    line = refused("predict", "scans", "--out", "o")
    assert line == "this installation has no model of heads: expected --model FILE, or the folder of a run"


def test_models_are_listed_with_their_cards(package):
    assert run("models").stdout.splitlines() == [
        "brain: Three shades of brains (takes brains; MIT)",
        "head: Three shades of heads (takes heads; MIT)",
    ]
    assert run("models", "head").stdout.splitlines() == [
        "head: Three shades of heads",
        "Classes: dark, medium, bright",
        "Takes: coronal slices of 32 x 32 voxels of 1 x 1 mm (orientation IR), the whole head, air and the 99 % "
        "quantile of the rest scaled to 0 and 1",
        "Data: none",
        "Licence: MIT",
        "Command: make models",
        "Seed: 0",
        "Training time: none",
        "Not for: anything",
        "Dice, phantoms: dark 0.50, bright 0.75",
    ]
    assert refused("models", "haed") == "NAME haed: there is no such model: did you mean 'head'?"
    (package / "head.json").write_text('{"takes": "head"}')
    assert refused("models", code=1).startswith(f"{package / 'head.json'}: the card: its content: expected an entry")
    (package / "head.json").unlink()
    assert refused("models", code=1) == f"{package / 'head.json'}: the card cannot be read: No such file or directory"


def test_an_installation_without_models(package):
    for path in package.iterdir():
        path.unlink()
    assert run("models").stdout == (
        "This installation has no models; metasynth predict takes a run or a model file by --model.\n"
    )


def test_a_model_is_added_in_half_precision(package, tmp_path):
    path = save_random(tmp_path / "mine.pt", seed=5, **HEAD)
    (tmp_path / "card.json").write_text(json.dumps(card("head")))
    assert run("models", "mine", "--add", path, "--card", "card.json").stdout == f"Model: {package / 'mine.pt'}\n"
    before, after = load_model(path), load_model(package / "mine.pt")
    assert after.description == before.description
    kept, given = after.network.state_dict(), before.network.state_dict()
    for name, value in kept.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, given[name].half().float())
    weights = sum(value.numel() for value in given.values())
    assert path.stat().st_size - (package / "mine.pt").stat().st_size >= 1.9 * weights
    assert shipped.shipped_models()["mine"].card["summary"] == "Three shades of heads"


def test_what_cannot_be_added(package, tmp_path):
    path = save_random(tmp_path / "mine.pt")
    (tmp_path / "card.json").write_text(json.dumps(card("head")))
    line = refused("models", "mine", "--add", path, "--card", "card.json")
    assert line == "--card card.json: takes: expected 'brain', as the model does, got 'head'"
    line = refused("models", "a/b", "--add", path, "--card", "card.json")
    assert line == "--add: expected NAME, of letters, digits and underscores, and --card JSON"
    assert refused("models", "mine", "--card", "card.json") == "--card: goes with --add"
    network = random_unet()
    next(network.parameters()).data[:] = 1e6
    save_model(path, network, describe())
    (tmp_path / "card.json").write_text(json.dumps(card("brain")))
    line = refused("models", "mine", "--add", path, "--card", "card.json", code=1)
    assert line.endswith(": must be within the 65504 of half precision, got 1e+06")
    assert not (package / "mine.pt").exists()


def test_the_models_of_this_package_have_cards():
    found = shipped.shipped_models()
    assert {f"{name}.pt" for name in found} == {path.name for path in shipped.FOLDER.glob("*.pt")}
    for model in found.values():
        assert (model.card["takes"] == "head") == load_model(model.path).description.takes_heads
