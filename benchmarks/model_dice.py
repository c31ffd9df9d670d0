"""How good a model is on labelled scans: as they are, inverted, turned and resampled; as its card says.

python benchmarks/model_dice.py brain --images ixi10/images --labels ixi10/labels --card brain.json
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from metasynth.data_prep.cohorts.cohort import ensure_cohort
from metasynth.data_prep.cohorts.simulated import SimulatedSpec
from metasynth.data_prep.cohorts.warped import CohortSpec
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mappings import load_mapping
from metasynth.data_prep.scaling import not_air, scale, scale_head
from metasynth.data_prep.sources import Scan, find_files, pair
from metasynth.data_prep.volumes.resample import (
    grid_with_spacing,
    resample_classes,
    resample_image,
    resample_mask,
    to_source,
)
from metasynth.data_prep.volumes.volumes import Volume, read_image, read_labels
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from metasynth.data.cache import Cache
from metasynth.predict.scan import segment
from metasynth.predict.shipped import named_model
from metasynth.segment.metrics import DiceAccumulator
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import load_model

PEOPLE = CohortSpec("template-96", n_subjects=3, slices_per_subject=3, spacing_mm=2.0, shape=(96, 96))
SPACING = (1.3, 1.7, 2.4)


@dataclass(frozen=True)
class Case:
    """A scan, its classes and its brain."""

    image: Volume
    classes: Volume
    brain: Volume


def as_it_is(case: Case) -> Case:
    """The scan."""
    return case


def inverted(head: bool, case: Case) -> Case:
    """The scan with 1 - x within the head, or within the brain where a model takes brains."""
    image, brain = case.image, case.brain.data > 0
    if head:
        scaled = scale_head(image.data, image.where)
        turned = np.where(not_air(scaled), 1 - scaled, 0)
    else:
        turned = np.where(brain, 1.02 - scale(image.data, brain, image.where), 0)  # what is 0 is background
    return replace(case, image=Volume(turned.astype(np.float32), image.affine, image.where))


def resampled(case: Case) -> Case:
    """The scan with its axes in another order and in voxels of 1.3 x 1.7 x 2.4 mm."""
    order = [2, 0, 1]
    image, classes, brain = (
        Volume(each.data.transpose(order), each.affine[:, [*order, 3]], each.where)
        for each in (case.image, case.classes, case.brain)
    )
    grid = grid_with_spacing(image, SPACING)
    matrix = to_source(image, grid)
    return Case(
        Volume(resample_image(image.data, matrix, grid), grid.affine, image.where),
        Volume(resample_classes(classes.data, matrix, grid), grid.affine, classes.where),
        Volume(resample_mask(brain.data > 0, matrix, grid), grid.affine, brain.where),
    )


def dice(model: TrainedModel, cases: Iterator[Case], n: int, masked: bool) -> dict[str, float]:
    """Mean over scans of the Dice of every class, by name, and of all under 'mean'."""
    names = model.description.class_names
    counted = DiceAccumulator(len(names), n)
    for index, case in enumerate(cases):
        labels = segment(model, case.image, case.brain if masked else None).labels
        found, true = (torch.from_numpy(each.astype(np.int64))[None] for each in (labels, case.classes.data))
        counted.update(found, true, torch.tensor([index]))
    scores = np.nanmean(counted.result(), axis=0)[1:].tolist()
    return {"mean": float(np.mean(scores)), **dict(zip(names[1:], scores, strict=True))}


def conditions(head: bool, masked: bool) -> dict[str, tuple[Callable[[Case], Case], bool]]:
    """What is done to the scans, and whether a mask is given, by what the card says of it."""
    made = {"T1": as_it_is, "inverted T1": partial(inverted, head), "T1, turned, 1.3 x 1.7 x 2.4 mm": resampled}
    if head:
        found = {f"{name}, no mask": (change, False) for name, change in made.items()}
        return found | ({"T1, mask of the brain": (as_it_is, True)} if masked else {})
    return {f"{name}, mask of the brain": (change, True) for name, change in made.items()}


def read(scan: Scan, mapping: LabelMapping) -> Case:
    """A scan; what its labels label is its brain."""
    assert scan.image
    assert scan.labels
    labels = read_labels(scan.labels)
    return Case(
        read_image(scan.image),
        Volume(mapping.apply(labels.data, where=labels.where), labels.affine, labels.where),
        Volume((labels.data > 0).astype(np.float32), labels.affine, labels.where),
    )


def simulated(model: TrainedModel, folder: Path) -> dict[str, dict[str, float]]:
    """The same of slices of the embedded cohort in two SIMULATED contrasts, made in a folder: no scan is needed.

    The cerebellum is background there. A model of heads is shown the brains in a dark ring and a bright one.
    """
    names, found = model.description.class_names, {}
    for contrast in ("mprage", "flash-3"):
        with Cache(ensure_cohort(SimulatedSpec.like(PEOPLE, contrast, "young"), folder)) as cache:
            images, labels = cache.read_images(range(cache.n)), cache.read_labels(range(cache.n)).astype(np.int64)
            known = cache.info.class_names
        if model.description.takes_heads:
            images = np.stack([with_head(np.pad(image, 16)) for image in images])
            labels = np.pad(labels, ((0, 0), (16, 16), (16, 16)))
        index = torch.tensor([known.index(name) if name in known else 0 for name in names])
        with torch.inference_mode():
            shown = index[model.network(torch.from_numpy(images.astype(np.float32))[:, None]).argmax(1)]
        counted = DiceAccumulator(len(known), 1)
        counted.update(shown, torch.from_numpy(labels), torch.zeros(len(labels), dtype=torch.int64))
        scores = counted.result()[0, 1:].tolist()
        found[f"SIMULATED {contrast.upper()}"] = {
            "mean": float(np.mean(scores)),
            **dict(zip(known[1:], scores, strict=True)),
        }
    return found


def with_head(brain: NDArray[np.floating]) -> NDArray[np.floating]:
    """A slice (H, W) of a brain with skull and scalp of its own shape around it."""
    away = distance_transform_edt(~binary_fill_holes(brain > 0))
    return np.select([away == 0, away < 4, away < 8], [0.7 * brain, 0.1, 0.6], 0.0)


def main() -> None:
    """Print the Dice of every condition, and put it into the model's card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="brain", help="a model of the package, a file or a run")
    parser.add_argument("--images", help="scans; without them there are the SIMULATED slices alone")
    parser.add_argument("--labels", help="their label maps; what they label is the mask of the brain")
    parser.add_argument("--mapping", default="muse-5")
    parser.add_argument("--masked", action="store_true", help="try a model of heads with masks too")
    parser.add_argument("--scans", type=int, help="how many of them; all by default")
    parser.add_argument("--card", type=Path, help="the card whose entry 'dice' is replaced")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model, mapping = load_model(named_model(options.model, None)), load_mapping(options.mapping)
    scans, made = [], {}
    if options.images and options.labels:
        files = find_files([options.images], "--images"), find_files([options.labels], "--labels")
        scans = pair(*files, label="label map", image="image").scans[: options.scans]
        made = conditions(model.description.takes_heads, options.masked)
    results = {}
    for name, (change, with_mask) in made.items():
        begun = time.perf_counter()
        cases = (change(read(scan, mapping)) for scan in scans)
        scores = dice(model, cases, len(scans), with_mask)
        results[name] = {key: round(value, 3) for key, value in scores.items()}
        print(name, results[name], f"{(time.perf_counter() - begun) / len(scans):.1f} s a scan", flush=True)
    with TemporaryDirectory() as folder:
        for name, scores in simulated(model, Path(folder)).items():
            results[name] = {key: round(value, 3) for key, value in scores.items()}
            print(name, results[name])
    if options.card is not None:
        card = json.loads(options.card.read_text())
        options.card.write_text(json.dumps(card | {"dice": results}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
