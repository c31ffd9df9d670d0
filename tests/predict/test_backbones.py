"""Networks of other packages from training to label maps, by the command line."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.data_prep.volumes.volumes import Volume
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, LEVELS, NearestLevel, describe
from support.tiny_noise import arguments, make_cache

from metasynth.cli.main import main
from metasynth.predict.network import slice_posteriors
from metasynth.predict.scan import segment
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import find_model, load_model

STAGE = "sigma=0.1/learn"
NETWORKS = {
    "nnunet": {"segmenter__network": "nnunet"},
    "nnunet_residual": {"segmenter__network": "nnunet_residual"},
    "monai": {
        "segmenter__network": "monai",
        "segmenter__network_arguments": '{"class": "UNet", "channels": [4, 8], "strides": [2]}',
        "segmenter__widths": "",
    },
}


def invoke(*words):
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("network", NETWORKS)
def test_a_study_trains_it_and_its_model_segments_scans(tmp_path, network):
    pytest.importorskip("monai" if network == "monai" else "dynamic_network_architectures")
    cache = make_cache(tmp_path / "c.h5")
    run = tmp_path / "run"
    invoke(*arguments(run, cache, seed=1, baselines="false", **NETWORKS[network]))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sigmas = [record["sigma"] for record in records if "outer_step" in record]
    assert len(sigmas) >= 4
    assert len(set(sigmas)) == len(sigmas)
    model = load_model(find_model(run, STAGE))
    assert model.stride == (None if network == "monai" else (4, 4))
    # Larger than the training images along both axes, and not by a multiple of anything.
    scan, out, ids = tmp_path / "scan.nii.gz", tmp_path / "out", head_labels(0, (24, 26, 22))
    save(scan, head_image(ids), spacing=(3.0, 3.0, 3.0))
    invoke("predict", run, scan, "--stripped", "--out", out, "--device", "cpu", "--threads", "1", "--quiet")
    found = nib.load(out / "scan.nii.gz")
    assert found.shape == ids.shape
    labels = np.asanyarray(found.dataobj)
    assert len(np.unique(labels)) > 1
    assert labels.max() < 3


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 9, 12), (2, 20, 31)])
def test_slices_in_windows_of_a_network_that_sees_single_voxels_are_what_it_gives(shape):
    stack = np.random.default_rng(0).random(shape, dtype=np.float32)
    whole = slice_posteriors(NearestLevel(), stack, "cpu")
    assert whole.shape == (len(CLASSES), *shape)
    np.testing.assert_allclose(slice_posteriors(NearestLevel(), stack, "cpu", (8, 8)), whole, atol=1e-6)


class OneShape(NearestLevel):
    """It takes images of 32 x 32 voxels and no others."""

    stride = None

    def forward(self, images):
        """Logits (B, K, 32, 32)."""
        assert images.shape[2:] == (32, 32)
        return super().forward(images)


def test_a_network_of_one_shape_segments_larger_slices():
    model = TrainedModel(OneShape().eval(), describe())
    classes = np.zeros((6, 50, 45), dtype=np.uint8)
    classes[:, 3:47, 4:41] = np.random.default_rng(0).integers(1, 4, (6, 44, 37))
    image = Volume((100 * np.array(LEVELS)[classes]).astype(np.float32), np.eye(4), "here")
    everywhere = Volume(np.ones(classes.shape, dtype=np.int64), np.eye(4), "mask")
    np.testing.assert_array_equal(segment(model, image, everywhere).labels, classes)


def test_what_a_network_does_not_say():
    model = TrainedModel(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1)), describe())
    assert (model.stride, model.in_channels, model.ndim) == (None, 1, 2)
