import dataclasses
import io
import math
import pickle
import re
import zipfile

import pytest
import torch
from support.tiny_model import describe, random_unet
from torch import nn

from metasynth.errors import DataError, RunError, UsageError
from metasynth.segment.model_file import find_model, load_model, model_path, save_model

DESCRIPTION = describe(provenance={"experiment": "noise", "stage": "sigma=0.1/learn", "seed": 3})


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.pt"
    save_model(path, random_unet(), DESCRIPTION)
    return path


def content(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("norm", [None, "batch", "instance"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_model_comes_back_as_it_was(tmp_path, ndim, norm):
    network = random_unet(ndim, norm)
    images = torch.randn(2, 1, *[8] * ndim)
    network(images)  # moves the running statistics of batch normalisation
    description = dataclasses.replace(describe(ndim), provenance=DESCRIPTION.provenance)
    save_model(tmp_path / "deep" / "m.pt", network, description)
    assert network.training
    before = torch.get_rng_state()
    again = load_model(tmp_path / "deep" / "m.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.description == description
    assert not again.network.training
    assert torch.equal(again.network(images), network.eval()(images))


def test_the_memory_format_does_not_matter(tmp_path, model):
    save_model(tmp_path / "c.pt", random_unet().to(memory_format=torch.channels_last), DESCRIPTION)
    a, b = (content(tmp_path / name)["weights"] for name in ("m.pt", "c.pt"))
    assert all(torch.equal(a[key], b[key]) and b[key].is_contiguous() for key in a)


def test_the_needs_and_the_origin_in_words():
    assert DESCRIPTION.needs == (
        "coronal slices of 32 x 32 voxels of 1 x 1 mm (orientation IR), the brain alone, the brain's 1 and 99 % "
        "quantiles scaled to 0 and 1"
    )
    assert DESCRIPTION.origin == "experiment noise, stage sigma=0.1/learn, seed 3"
    assert describe(3, brain_only=False).needs.startswith("volumes of 16 x 16 x 16 voxels of 1 x 1 x 1 mm")
    assert "the whole head" in describe(3, brain_only=False).needs


def test_a_model_that_looks_along_several_axes_says_so(tmp_path, model):
    description = describe(axis="coronal,axial,sagittal", orientation="IR,PR,IP", scaled_by="head", brain_only=False)
    save_model(tmp_path / "several.pt", random_unet(), description)
    assert load_model(tmp_path / "several.pt").description == description
    assert content(tmp_path / "several.pt")["version"] == 3  # which earlier versions of the program refuse
    assert description.views == ("IR", "PR", "IP")
    assert description.needs.startswith(
        "coronal, axial and sagittal slices of 32 x 32 voxels of 1 x 1 mm (orientation IR, PR and IP), the whole head"
    )
    assert content(model)["version"] == 1
    assert load_model(model).description.views == ("IR",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"axis": "coronal,axial"}, "orientation: must be one for each axis of 'coronal,axial', got 'IR'"),
        (
            {"axis": "axial,axial", "orientation": "PR,PR"},
            "orientation: must be one for each axis of 'axial,axial', got 'PR,PR'",
        ),
        (
            {"axis": "coronal,axial", "orientation": "IR,PR", "spacing_mm": (1.0, 2.0)},
            "spacing_mm: must be two equal numbers for slices along coronal,axial, got (1.0, 2.0)",
        ),
        (
            {"axis": "coronal,axial", "orientation": "IR,P"},
            "shape, spacing_mm and orientation: must have one entry an axis, got (32, 32), (1.0, 1.0) and 'IR,P'",
        ),
    ],
)
def test_axes_that_do_not_fit_are_told(changed, message):
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        describe(**changed)


class Writes:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_code_of_a_file_is_run(tmp_path, model):
    torch.save({**content(model), "extra": Writes(tmp_path / "made")}, model)
    with pytest.raises(DataError, match=r"m\.pt: the model holds more than tensors and plain values"):
        load_model(model)
    assert not (tmp_path / "made").exists()


def changed(**parts):
    def change(path):
        torch.save({**content(path), **parts}, path)

    return change


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_weight(path):
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda info: info.file_size)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 100 + info.file_size // 2] ^= 1
    path.write_bytes(data)


def lose_a_weight(path):
    parts = content(path)
    parts["weights"].popitem()
    torch.save(parts, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "the model cannot be read: No such file or directory"),
        (lambda path: path.write_text("no model"), "the model is damaged or no metasynth-model file"),
        (lambda path: path.write_bytes(pickle.dumps({})), "the model is damaged or no metasynth-model file"),
        (cut_short, "the model is damaged or no metasynth-model file"),
        (flip_a_weight, r"the model is damaged \(at "),
        (lambda path: torch.save({"step": 3}, path), "is not a metasynth-model file; a run keeps"),
        (lambda path: torch.save([1, 2], path), "the model holds a list, not a dict"),
        (changed(version=4), "format versions 1 to 3 are supported, got 4"),
        (changed(description={"axis": "coronal"}), "its parts do not fit together"),
        (changed(description=None), "its parts do not fit together"),
        (changed(network={"n_classes": 4, "depth": 3}), "its parts do not fit together"),
        (changed(network={"n_classes": 4, "widths": [4, 7]}), r"fit together \(Error\(s\) in loading state_dict"),
        (changed(network={"n_classes": 5, "widths": [4, 6]}), r"fit together \(class_names: must name the network's 5"),
        (lose_a_weight, "its parts do not fit together"),
    ],
)
def test_a_wrong_file_is_told_in_a_line(model, damage, message):
    damage(model)
    with pytest.raises(DataError, match=rf"m\.pt: .*{message}") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("class_names", (0, 1, 2, 3), "description.class_names.0: expected text, got 0"),
        ("class_names", "abcd", "description.class_names: expected a list of at least 2, got 'abcd'"),
        ("class_names", None, "description.class_names: expected a list of at least 2, got null"),
        ("mapping", 3, "description.mapping: expected text, got 3"),
        ("spacing_mm", ("1", "1"), "description.spacing_mm.0: expected a number above 0, got '1'"),
        ("spacing_mm", (1.0, math.nan), "description.spacing_mm.1: expected a number above 0, got nan"),
        ("spacing_mm", (1.0, True), "description.spacing_mm.1: expected a number above 0, got True"),
        ("axis", ["coronal"], "description.axis: expected text, got ['coronal']"),
        ("orientation", 7, "description.orientation: expected text, got 7"),
        ("shape", (32.0, 32.0), "description.shape.0: expected a whole number, got 32.0"),
        ("brain_only", "no", "description.brain_only: expected true or false, got 'no'"),
        ("percentiles", (1.0,), "description.percentiles: expected a list of 2, got (1.0,)"),
        ("percentiles", (1.0, "99"), "description.percentiles.1: expected a finite number, got '99'"),
        ("provenance", "mine", "description.provenance: expected an object, got 'mine'"),
        ("provenance", {"seed": [0]}, "description.provenance.seed: expected a finite number, got [0]"),
    ],
)
def test_a_field_of_another_type_is_named(model, part, value, message):
    parts = content(model)
    parts["description"][part] = value
    torch.save(parts, model)
    with pytest.raises(DataError) as caught:
        load_model(model)
    assert str(caught.value) == f"{model}: its parts do not fit together: {message}"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("network", [4], "network: expected an object, got [4]"),
        ("network", {"n_classes": 4, "widths": "ab"}, None),
        ("network", {"kind": "nnunet"}, None),
        ("network", {"kind": "monai", "name": "UNet", "n_classes": 4, "shape": [], "arguments": []}, None),
        ("weights", [], "weights: expected an object, got an empty list"),
        ("weights", {"a": 3}, "weights.a: expected a tensor, got 3"),
    ],
)
def test_a_part_of_another_type_is_named(model, part, value, message):
    torch.save({**content(model), part: value}, model)
    with pytest.raises(DataError, match="its parts do not fit together") as caught:
        load_model(model)
    assert message is None or str(caught.value) == f"{model}: its parts do not fit together: {message}"
    assert "\n" not in str(caught.value)


def test_names_of_classes_are_text():
    with pytest.raises(ValueError, match=r"^class_names: must be text, got \(0, 1, 2, 3\)$"):
        dataclasses.replace(DESCRIPTION, class_names=(0, 1, 2, 3))


def test_what_cannot_be_saved(model):
    before = model.read_bytes()
    with pytest.raises(ValueError, match=r"^segmenter: must be a UNet or a Backbone, got Linear; keep its"):
        save_model(model, nn.Linear(2, 2), DESCRIPTION)
    with pytest.raises(ValueError, match=r"^class_names: must name the network's 4 classes, got \('a', 'b'\)$"):
        save_model(model, random_unet(), dataclasses.replace(DESCRIPTION, class_names=("a", "b")))
    with pytest.raises(ValueError, match=r"^shape: must have the network's 3 axes, got \(32, 32\)$"):
        save_model(model, random_unet(3), DESCRIPTION)
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"class_names": ("one",)}, "class_names: must be at least 2"),
        ({"spacing_mm": (1.0,)}, "shape, spacing_mm and orientation: must have one entry an axis"),
        ({"orientation": "AIR"}, "shape, spacing_mm and orientation: must have one entry an axis"),
        ({"spacing_mm": (1.0, 0.0)}, "shape and spacing_mm: must be above 0"),
    ],
)
def test_a_description_that_cannot_be(part, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DESCRIPTION, **part)


def test_a_full_disk_leaves_the_model_that_was_there(model, full_disk):
    before = model.read_bytes()
    with full_disk(), pytest.raises(RunError, match=r"m\.pt: cannot be written: No space left on device"):
        save_model(model, random_unet(seed=1), DESCRIPTION)
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == ["m.pt"]


def test_which_model_of_a_run_is_meant(tmp_path, model):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(UsageError, match=r"run: holds no trained segmenter \(models/\*\.pt\)$"):
        find_model(run)
    assert model_path(run, "sigma=0.1/learn") == run / "models" / "sigma=0.1-learn.pt"
    save_model(model_path(run, "sigma=0.1/learn"), random_unet(), DESCRIPTION)
    assert find_model(run) == find_model(run, "sigma=0.1/learn") == run / "models" / "sigma=0.1-learn.pt"
    save_model(model_path(run, "sigma=0.1/naive"), random_unet(), DESCRIPTION)
    with pytest.raises(UsageError, match=r"choose one with --stage: sigma=0\.1-learn, sigma=0\.1-naive$"):
        find_model(run)
    assert find_model(run, "sigma=0.1-naive").name == "sigma=0.1-naive.pt"
    with pytest.raises(UsageError, match=r"^--stage best: .*run holds no segmenter of this stage; it has sigma=0\.1-l"):
        find_model(run, "best")
    with pytest.raises(UsageError, match="holds several runs: name one of them"):
        find_model(tmp_path)
    assert find_model(model) == model
    with pytest.raises(UsageError, match="is a model file"):
        find_model(model, "learn")
    with pytest.raises(UsageError, match="there is no such model file or folder"):
        find_model(tmp_path / "absent")


def test_a_file_that_a_newer_program_added_to_is_read(model):
    parts = content(model)
    parts["description"]["colour"] = "blue"
    buffer = io.BytesIO()
    torch.save(parts, buffer)
    model.write_bytes(buffer.getvalue())
    assert load_model(model).description == DESCRIPTION


def test_a_description_of_brains_alone_cannot_be_scaled_by_heads():
    with pytest.raises(
        ValueError, match=r"^scaled_by: must be 'brain', or 'head' of images that are not of brains alone"
    ):
        describe(scaled_by="head")
