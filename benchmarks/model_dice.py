"""How good a model is on labelled scans: as they are, inverted, turned and resampled; as its card says.

python benchmarks/model_dice.py brain --images ixi10/images --labels ixi10/labels --card brain.json
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mappings import load_mapping
from metasynth.data_prep.scaling import not_air, scale, scale_head
from metasynth.data_prep.sources import Scan, find_files, pair
from metasynth.data_prep.volumes.resample import grid_with_spacing, resample_ids, resample_image, to_source
from metasynth.data_prep.volumes.volumes import Volume, read_image, read_labels

from metasynth.predict.scan import segment
from metasynth.predict.shipped import named_model
from metasynth.segment.metrics import DiceAccumulator
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import load_model

Case = tuple[Volume, Volume]
SPACING = (1.3, 1.7, 2.4)


def as_it_is(image: Volume, labels: Volume) -> Case:
    """The scan."""
    return image, labels


def inverted(head: bool, image: Volume, labels: Volume) -> Case:
    """The scan with 1 - x within the head, or within the labels where a model takes brains."""
    if head:
        scaled = scale_head(image.data, image.where)
        turned = np.where(not_air(scaled), 1 - scaled, 0)
    else:
        brain = labels.data > 0
        turned = np.where(brain, 1.02 - scale(image.data, brain, image.where), 0)  # what is 0 is background
    return Volume(turned.astype(np.float32), image.affine, image.where), labels


def resampled(image: Volume, labels: Volume) -> Case:
    """The scan with its axes in another order and in voxels of 1.3 x 1.7 x 2.4 mm."""
    order = [2, 0, 1]
    moved = [Volume(v.data.transpose(order), v.affine[:, [*order, 3]], v.where) for v in (image, labels)]
    grid = grid_with_spacing(moved[0], SPACING)
    data = resample_image(moved[0].data, to_source(moved[0], grid), grid)
    return Volume(data, grid.affine, image.where), Volume(resample_ids(moved[1], grid), grid.affine, labels.where)


def dice(model: TrainedModel, cases: Iterator[Case], n: int, mapping: LabelMapping, masked: bool) -> dict[str, float]:
    """Mean over scans of the Dice of every class, by name, and of all under 'mean'."""
    names = model.description.class_names
    counted = DiceAccumulator(len(names), n)
    for index, (image, labels) in enumerate(cases):
        mask = Volume((labels.data > 0).astype(np.float32), labels.affine, labels.where) if masked else None
        found, true = segment(model, image, mask).labels.astype(np.int64), mapping.apply(labels.data).astype(np.int64)
        at = torch.tensor([index])
        counted.update(torch.from_numpy(found)[None], torch.from_numpy(true)[None], at)
    scores = np.nanmean(counted.result(), axis=0)[1:].tolist()
    return {"mean": float(np.mean(scores)), **dict(zip(names[1:], scores, strict=True))}


def conditions(head: bool, masked: bool) -> dict[str, tuple[Callable[..., Case], bool]]:
    """What is done to the scans, and whether a mask is given, by what the card says of it."""
    made = {"T1": as_it_is, "inverted T1": partial(inverted, head), "T1, turned, 1.3 x 1.7 x 2.4 mm": resampled}
    if head:
        found = {f"{name}, no mask": (change, False) for name, change in made.items()}
        return found | ({"T1, mask of the brain": (as_it_is, True)} if masked else {})
    return {f"{name}, mask of the brain": (change, True) for name, change in made.items()}


def read(scan: Scan) -> Case:
    """Image and labels of a scan."""
    assert scan.image
    assert scan.labels
    return read_image(scan.image), read_labels(scan.labels)


def main() -> None:
    """Print the Dice of every condition, and put it into the model's card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model of the package, a file or a run")
    parser.add_argument("--images", required=True)
    parser.add_argument("--labels", required=True, help="label maps; what they label is the mask of the brain")
    parser.add_argument("--mapping", default="muse-5")
    parser.add_argument("--masked", action="store_true", help="try a model of heads with masks too")
    parser.add_argument("--scans", type=int, help="how many of them; all by default")
    parser.add_argument("--card", type=Path, help="the card whose entry 'dice' is replaced")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model, mapping = load_model(named_model(options.model, None)), load_mapping(options.mapping)
    files = find_files([options.images], "--images"), find_files([options.labels], "--labels")
    scans = pair(*files, label="label map", image="image").scans[: options.scans]
    results = {}
    for name, (change, with_mask) in conditions(model.description.takes_heads, options.masked).items():
        begun = time.perf_counter()
        cases = (change(*read(scan)) for scan in scans)
        scores = dice(model, cases, len(scans), mapping, with_mask)
        results[name] = {key: round(value, 3) for key, value in scores.items()}
        print(name, results[name], f"{(time.perf_counter() - begun) / len(scans):.1f} s a scan", flush=True)
    if options.card is not None:
        card = json.loads(options.card.read_text())
        options.card.write_text(json.dumps(card | {"dice": results}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
