"""What the commands of the documentation find in their folder: scans, caches and runs of a size that takes seconds."""

import shutil
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from docs.small import LABELS, OTHER, REAL, small_run
from metasynth.data_prep.cohorts.template import load_template
from scipy.ndimage import distance_transform_edt
from support.head_phantom import as_muse, head_image, head_labels, save

from metasynth.cli.main import main

SHAPE, SPACING, PEOPLE = (36, 44, 40), (2.0, 2.0, 2.0), 10
CLASSES = {"white": (2, 41, 16), "grey": (3, 42, 10, 49), "fluid": (4, 43), "background": (0, 24, 507)}


def metasynth(*words: str) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, f"metasynth {' '.join(words)}\n{done.output}\n{done.exception!r}"
    return done.output


def scans(folder: Path) -> None:
    """Label maps, scans with labels, and scans with masks and references, under the names that the pages use."""
    for person in range(PEOPLE):
        ids = head_labels(person, SHAPE)
        save(folder / f"label_maps20/map{person}.nii.gz", ids, spacing=SPACING)
        save(folder / f"ixi10/images/person{person}.nii.gz", head_image(ids, person), spacing=SPACING)
        save(folder / f"ixi10/labels/person{person}.nii.gz", as_muse(ids), spacing=SPACING)
    for person in range(2):
        ids = head_labels(person, SHAPE)
        brain = ((ids > 0) & (ids != 507)).astype(np.uint8)
        save(folder / f"scans/s{person}.nii.gz", head_image(ids, person), spacing=SPACING)
        save(folder / f"brainmasks/s{person}.nii.gz", brain, spacing=SPACING)
        save(folder / f"bids/sub-{person}/anat/sub-{person}_T1w.nii.gz", head_image(ids, person), spacing=SPACING)
        save(folder / f"brainmasks/sub-{person}.nii.gz", brain, spacing=SPACING)
        save(folder / f"references/s{person}.nii.gz", ids, spacing=SPACING)
    (folder / "mine.csv").write_text("".join(f"{i},{name}\n" for name, ids in CLASSES.items() for i in ids))


def template_head(folder: Path) -> None:
    """A scan of the embedded brain in a dark skull and a bright scalp, and its mask: a head that a model can know."""
    brain = np.pad(load_template().t1[::3, ::3, ::3], 8)
    away = distance_transform_edt(brain == 0)
    head = np.select([away == 0, away < 3, away < 6], [0.7 * brain, 0.1, 0.6], 0.0)
    save(folder / "scan.nii.gz", head.astype(np.float32), spacing=(3.0, 3.0, 3.0))
    save(folder / "mask.nii.gz", (brain > 0).astype(np.uint8), spacing=(3.0, 3.0, 3.0))


def fill(folder: Path) -> None:
    """Everything a page may name without making it; the working folder must be ``folder``."""
    scans(folder)
    template_head(folder)
    frame = ("--spacing", "3", "--size", "32,32", "--quiet")
    metasynth("prep", "labels", "label_maps20", "--mapping", "freesurfer-4", *frame, "--out", "labels20.h5")
    ixi = ("--images", "ixi10/images", "--labels", "ixi10/labels", "--mapping", "muse-4")
    metasynth("prep", "nifti", *ixi, *frame, "--out", "ixi10.h5")
    shutil.copy("labels20.h5", LABELS)
    for name in (REAL, OTHER, "mprage.h5", "flash.h5", "t2.h5", "scans.h5"):
        shutil.copy("ixi10.h5", name)
    for name, sets in (("noise", []), ("five-percent", ["--set", "sigma=0.05"])):
        metasynth(*small_run(["metasynth", "run", "noise", *sets, "--out", f"runs/{name}"])[1:])
