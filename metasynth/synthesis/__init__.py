"""Images from label maps, (B, *S) integers -> (B, 1, *S) intensities; nothing here has learned weights.

`BatchedGenerator` draws whole batches of random contrasts; `CornucopiaGenerator` is cornucopia's own, of which it is
the same family. `simulate` gives the signal of a pulse sequence instead.
"""

from typing import TYPE_CHECKING, Any

from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.clusters import ClusteredGenerator
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.generator import ImageGenerator, SeededGenerator
from metasynth.synthesis.mri import simulate
from metasynth.synthesis.priors.estimate import Estimate, estimate_priors
from metasynth.synthesis.priors.priors_file import read_priors, write_priors
from metasynth.synthesis.priors.structure_priors import Prior, StructurePriors
from metasynth.synthesis.sequences import Flash, Mprage, PulseSequence
from metasynth.synthesis.tissue import Tissue, TissueSpread, TissueTable, draw_person, tissue_table

if TYPE_CHECKING:
    from metasynth.synthesis.cornucopia import CornucopiaGenerator

__all__ = [
    "PAPER",
    "BatchedGenerator",
    "ClusteredGenerator",
    "CornucopiaConfig",
    "CornucopiaGenerator",
    "Estimate",
    "Flash",
    "ImageGenerator",
    "Mprage",
    "Prior",
    "PulseSequence",
    "SeededGenerator",
    "StructurePriors",
    "Tissue",
    "TissueSpread",
    "TissueTable",
    "draw_person",
    "estimate_priors",
    "read_priors",
    "simulate",
    "tissue_table",
    "write_priors",
]


def __getattr__(name: str) -> Any:
    """Cornucopia, which takes long to import, is imported when its generator is asked for."""
    if name == "CornucopiaGenerator":
        from metasynth.synthesis.cornucopia import CornucopiaGenerator

        return CornucopiaGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
