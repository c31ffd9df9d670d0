"""Segmenters as ONNX files: their outputs are the model's, whatever the batch and size."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.tiny_model import CLASSES, describe, random_unet, save_random
from torch import nn

from metasynth.cli.main import main
from metasynth.errors import PackageError, RunError
from metasynth.export import onnx_file
from metasynth.export.onnx_file import write_onnx
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import load_model

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def outputs(path, images):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.numpy()})[0]


def properties(path) -> dict[str, str]:
    return {one.key: one.value for one in onnx.load(str(path)).metadata_props}


@pytest.mark.parametrize("norm", [None, "instance", "batch"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_outputs_are_the_model_s_for_any_batch_and_size(tmp_path, ndim, norm):
    network = random_unet(ndim, norm).eval()
    off = write_onnx(TrainedModel(network, describe(ndim)), tmp_path / "a.onnx")
    assert 0 <= off <= 1e-4
    onnx.checker.check_model(str(tmp_path / "a.onnx"))
    for batch, sizes in ((1, (16, 20, 24)), (3, (32, 8, 2))):
        images = torch.rand(batch, 1, *sizes[:ndim])
        with torch.no_grad():
            expected = network(images).numpy()
        np.testing.assert_allclose(outputs(tmp_path / "a.onnx", images), expected, atol=1e-4)


def test_a_run_is_exported_with_what_its_segmenter_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "run" / "models" / "a.pt", provenance={"seed": 3})
    save_random(tmp_path / "run" / "models" / "b.pt", 3)
    done = CliRunner().invoke(main, ["export", "onnx", "run", "--stage", "a", "--out", "a.onnx"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Model: a.onnx (its outputs differ by at most ")
    assert done.output.endswith("from those of run/models/a.pt)\n")
    found = properties("a.onnx")
    plain = {key: json.loads(value) for key, value in found.items() if value[0] in "[{tn"}
    assert plain["class_names"] == list(CLASSES)
    assert (plain["spacing_mm"], plain["shape"], plain["stride"]) == ([1.0, 1.0], [32, 32], [2, 2])
    assert (plain["brain_only"], plain["percentiles"], plain["provenance"]) == (True, [1.0, 99.0], {"seed": 3})
    assert (found["orientation"], found["axis"], found["takes"], found["mapping"]) == (
        *("AIR", "coronal", "brain", "drawn by a test"),
    )
    assert plain["preprocessing"] == [
        "Scale linearly so that the 1 % and 99 % quantiles of the voxels in the brain mask (without a mask: of what is "
        "not background) become 0 and 1, and cut there; set all outside the mask to 0",
        "Turn it so that its axes grow to A, I, R",
        "Resample the rows and columns to voxels of 1 x 1 mm, linearly; where that is coarser, after a Gaussian of "
        "sqrt(r^2 - 1) / 2.355 voxels along each axis, r being the new spacing over the old",
        "Cut or pad with 0 about the middle of the content, to 32 x 32 voxels or more, multiples of 2 x 2",
        "Each plane along the first axis is an image (1, H, W)",
    ]
    assert plain["postprocessing"] == [
        "The softmax over axis 1 of the logits is the posterior of each class",
        "Outside the brain, its holes filled, all is background",
        "Resample the posteriors to the scan's own voxels; the label is the class of the largest",
    ]
    assert "card" not in found


def test_a_model_of_heads_says_how_heads_are_scaled(tmp_path):
    description = describe(3, brain_only=False, scaled_by="head", brain_share=0.4)
    write_onnx(TrainedModel(random_unet(3).eval(), description), tmp_path / "a.onnx", {"licence": "CC0"})
    found = properties(tmp_path / "a.onnx")
    assert found["takes"] == "head"
    assert json.loads(found["card"]) == {"licence": "CC0"}
    assert json.loads(found["preprocessing"])[0] == (
        "Scale the whole head linearly and cut it to [0, 1]: 0 is l, the 1 % quantile of all voxels; 1 is the 99 % "
        "quantile of the voxels above l + 0.1 (q - l), where q is the 99 % quantile of all"
    )
    assert json.loads(found["postprocessing"])[1] == (
        "Of more than one window of 16 x 16 x 16: average the posteriors of windows that overlap by 50%, weighted by a "
        "Gaussian of 0.125 of their length"
    )


def test_a_model_of_several_views_says_all_of_them(tmp_path):
    description = describe(axis="coronal,axial,sagittal", orientation="IR,PR,IP", shape=(32, 24))
    write_onnx(TrainedModel(random_unet().eval(), description), tmp_path / "a.onnx")
    found = properties(tmp_path / "a.onnx")
    assert (found["axis"], found["orientation"]) == ("coronal,axial,sagittal", "AIR,SPR,RIP")
    assert json.loads(found["preprocessing"])[1:] == [
        "Turn it so that its axes grow to A, I, R",
        "Resample it to voxels of 1 x 1 x 1 mm, linearly; where that is coarser, after a Gaussian of sqrt(r^2 - 1) / "
        "2.355 voxels along each axis, r being the new spacing over the old",
        "Cut or pad with 0 about the middle of the content, to 32 x 32 x 24 voxels or more, multiples of 2 x 2 x 2",
        "Each plane along each axis, from the first with content to the last, is an image (1, H, W): rows and columns "
        "grow in coronal ones to I, R; in axial ones to P, R; in sagittal ones to I, P",
    ]
    assert json.loads(found["postprocessing"])[:2] == [
        "The softmax over axis 1 of the logits is the posterior of each class",
        "The posterior of a voxel is the mean of those that its 3 planes give, turned back; a plane beyond the content "
        "gives background",
    ]


class Multiples(nn.Module):
    """A network that does not say what sizes it takes."""

    def forward(self, images):
        return torch.cat([images * k for k in range(4)], dim=1)


def test_a_network_that_does_not_say_its_sizes_takes_those_of_its_training(tmp_path):
    write_onnx(TrainedModel(Multiples(), describe()), tmp_path / "a.onnx")
    (given,) = onnx.load(str(tmp_path / "a.onnx")).graph.input
    dims = given.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, 32, 32]
    assert json.loads(properties(tmp_path / "a.onnx")["preprocessing"])[3] == "Take windows of 32 x 32 voxels"


class Alternating(nn.Module):
    """Another network for one image than for several."""

    stride = 1

    def forward(self, images):
        return torch.cat([images * k for k in range(4)], dim=1) * (1.0 if len(images) > 1 else 2.0)


def test_a_file_with_other_outputs_is_not_written(tmp_path):
    with pytest.raises(RunError) as found:
        write_onnx(TrainedModel(Alternating(), describe()), tmp_path / "a.onnx")
    assert str(found.value).startswith(
        "the network cannot be exported as ONNX: outputs for images of 33 x 33 differ by "
    )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_said_in_a_line(tmp_path):
    class Odd(nn.Module):
        stride = 1

        def forward(self, images):
            return torch.special.bessel_j0(images).expand(-1, 4, -1, -1)

    with pytest.raises(RunError) as found:
        write_onnx(TrainedModel(Odd(), describe()), tmp_path / "a.onnx")
    assert str(found.value).startswith("the network cannot be exported as ONNX: ")
    assert "\n" not in str(found.value)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(onnx_file, "import_module", refuse)
    with pytest.raises(PackageError) as found:
        write_onnx(TrainedModel(random_unet(), describe()), tmp_path / "a.onnx")
    assert str(found.value) == ("export onnx needs the package onnx: pip install 'metasynth-toolkit[export]'")


def test_a_file_is_replaced_only_if_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "m.pt")
    (tmp_path / "mine.onnx").write_text("mine")

    def export(out, *options):
        done = CliRunner().invoke(main, ["export", "onnx", "m.pt", "--out", out, *options])
        return done.exit_code, done.stderr

    assert export("a.onnx") == (0, "")
    first = (tmp_path / "a.onnx").read_bytes()
    line = "Error: --out a.onnx: exists already; give another name or --overwrite\n"
    assert export("a.onnx") == (2, line)
    assert export("a.onnx", "--overwrite") == (0, "")
    assert (tmp_path / "a.onnx").read_bytes() == first
    line = "Error: --out mine.onnx: is there and is no ONNX file that metasynth wrote; give another name\n"
    assert export("mine.onnx", "--overwrite") == (2, line)
    assert load_model("m.pt").description.class_names == CLASSES
