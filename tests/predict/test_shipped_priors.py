"""The priors that the models of the package were trained with are what their files say they are."""

import pytest
import torch

from metasynth.predict.shipped import FOLDER
from metasynth.synthesis.priors.priors_file import read_priors
from metasynth.synthesis.sequences import Mprage
from metasynth.synthesis.tissue import TISSUES, tissue_table

STRUCTURES = {
    "cerebral cortex": "cortical grey",
    "lateral ventricle": "cerebrospinal fluid",
    **{name: name for name in ("caudate", "putamen", "accumbens", "pallidum", "thalamus", "hippocampus", "amygdala")},
}


@pytest.mark.parametrize("kind", ["brain", "head"])
def test_contrasts_are_those_of_the_signal_equation(kind):
    """Beside white matter, the mean of what MPRAGE gives at 1.5 and 3 T."""
    means = dict(zip(*((p := read_priors(FOLDER / f"{kind}.priors.json")).names, p.mean), strict=True))
    tissues = ["white matter", *STRUCTURES.values()]
    one = torch.ones((), dtype=torch.float64)
    signals = []
    for tesla in TISSUES:
        table = tissue_table(tissues, tesla)
        signal = Mprage().signal(table.t1_ms, table.t2_star_ms, table.pd, one)
        signals.append(signal / signal[0])
    expected = torch.stack(signals).mean(0)[1:].tolist()
    white = means["cerebral white matter"]
    assert [means[name] / white for name in STRUCTURES] == pytest.approx(expected, abs=2e-3)
