"""What the SAMSEG-style atlas segmenter reaches: Dice after a rigid, an affine and a deformable fit, on one thread.

The atlas is made from the label maps of one cache, the images are those of another (any contrast; their labels only
score), volumes or slices. Without caches: the simulated MPRAGE cohort, the atlas from its training subjects and the
images of its test subjects. Slices get one atlas for each of --planes ranges of position, and the likeliest is taken.

    python benchmarks/atlas.py [--cohort flash-20-96]
    metasynth prep labels label_maps20 --mapping freesurfer-4 --spacing 2 --volumes --align affine --out labels20-vol.h5
    metasynth prep nifti --images ixi10/images --labels ixi10/labels --mapping muse-4 --volumes --out ixi10-vol.h5
    python benchmarks/atlas.py --maps labels20-vol.h5 --images ixi10-vol.h5 [--every 2] [--json FILE] [--picture PNG]
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort
from metasynth.experiments.comparison.atlas import atlases_of
from torch import Tensor

from metasynth.data import Cache, SliceDataset, make_split
from metasynth.segment import Atlas, AtlasSegmenter, DiceAccumulator
from metasynth.segment.atlas.segmenter import AtlasFit, AtlasSettings, brain_mask, fit

KINDS = ("rigid", "affine", "deformable")


@dataclass(frozen=True)
class Row:
    """One fit of all images: Dice averaged over subjects, by class and over the foreground, and seconds an image."""

    fitted: str
    mean: float
    sd: float
    worst: float
    per_class: dict[str, float]
    seconds: float


def items_of(cache: Cache, subjects: Sequence[str]) -> np.ndarray:
    """Indices of all slices or volumes of some subjects."""
    return np.flatnonzero(np.isin(np.array(cache.subjects)[cache.subject_index], list(subjects)))


def picture(image: Tensor, fits: dict[str, AtlasFit], truth: Tensor, path: Path) -> None:
    """The middle slice of an image, its bias field, what each fit finds and the labels given."""
    middle = image.shape[0] // 2
    panels = {"image": image, "bias field": fits["deformable"].bias * brain_mask(image)}
    panels |= {kind: found.labels for kind, found in fits.items()} | {"labels given": truth}
    figure, axes = plt.subplots(1, len(panels), figsize=(2 * len(panels), 2.3), layout="constrained")
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        flat = panel[middle] if panel.ndim == 3 else panel
        classes = not flat.is_floating_point()
        axis.imshow(flat, cmap="viridis" if classes else "gray", vmin=0, vmax=4 if classes else None)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def measured(atlases: tuple[Atlas, ...], cache: Cache, chosen: np.ndarray, png: Path | None) -> list[Row]:
    """All fits of the chosen items."""
    subjects = sorted({int(cache.subject_index[item]) for item in chosen})
    scores = {kind: DiceAccumulator(cache.n_classes, len(subjects)) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    segmenter = AtlasSegmenter(atlases)
    for item in chosen:
        image = torch.from_numpy(cache.read_images([item])[0])
        truth = torch.from_numpy(cache.read_labels([item])[0])
        start = time.process_time()
        atlas, mask = segmenter.choose(image), brain_mask(image)
        choosing, fits = time.process_time() - start, {}
        for kind in KINDS:
            start = time.process_time()
            fits[kind] = fit(atlas, image, mask, AtlasSettings().up_to(kind))
            seconds[kind].append(choosing + time.process_time() - start)
            subject = torch.tensor([subjects.index(int(cache.subject_index[item]))])
            scores[kind].update(fits[kind].labels[None], truth[None], subject)
        if png is not None and item == chosen[len(chosen) // 2]:
            picture(image, fits, truth, png)
        print(".", end="", flush=True)
    print()
    rows = []
    for kind in KINDS:
        found = scores[kind].summary(cache.class_names, [cache.subjects[subject] for subject in subjects])
        per_class = {name: found["per_class"][name] for name in cache.class_names[1:]}
        worst = min(found["per_subject"].values())
        rows.append(Row(kind, found["mean"], found["sd"] or 0.0, worst, per_class, statistics.fmean(seconds[kind])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="mprage-young-96", help="embedded cohort, where no caches are given")
    parser.add_argument("--maps", type=Path, help="cache of label maps for the atlas")
    parser.add_argument("--images", type=Path, help="cache of images to segment, with labels")
    parser.add_argument("--planes", type=int, default=8, help="atlases, where the caches hold slices")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image only")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--picture", type=Path, help="also draw the fits of an image in the middle")
    options = parser.parse_args()
    if (options.maps is None) != (options.images is None):
        parser.error("--maps and --images: give both or neither")
    torch.set_num_threads(1)
    path = options.images or ensure_cohort(COHORTS[options.cohort])
    with Cache(path) as images, Cache(options.maps or path) as maps:
        split = make_split(images.subjects, 0)
        dataset = SliceDataset(maps, maps.subjects if options.maps else split.train)
        atlases = atlases_of(dataset.read(range(len(dataset))).labels, dataset, options.planes)
        chosen = items_of(images, images.subjects if options.maps else split.test)[:: options.every]
        print(f"{path.name}: {len(chosen)} images; {len(atlases)} atlases of {maps.path.name}")
        rows = measured(atlases, images, chosen, options.picture)
        print(f"{'':12}{'mean':>7}{'SD':>7}{'worst':>7}{'s':>7}  " + "  ".join(images.class_names[1:]))
        for row in rows:
            classes = "".join(f"{row.per_class[name]:{len(name)}.3f}  " for name in row.per_class)
            print(f"{row.fitted:12}{row.mean:7.3f}{row.sd:7.3f}{row.worst:7.3f}{row.seconds:7.1f}  {classes}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
