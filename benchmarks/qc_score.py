"""How well the score of `metasynth predict --qc` ranks scans by their Dice.

Scans with label maps are degraded by noise, fields and crops of several strengths, segmented, and scored: Spearman's
rank correlation of the mean Dice over classes with the expected Dice, and with the mean posterior of the label.

    noise    Rician, of a standard deviation in shares of the image's 99 % quantile;
    field    exp of a smooth field through 3 x 3 x 3 normal draws of that standard deviation;
    crop     planes that are cut off, in shares of the brain's height: the top of one scan, the bottom of the next.

    python benchmarks/qc_score.py --images ixi10/images --labels ixi10/labels
"""

import argparse
from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mappings import load_mapping
from metasynth.data_prep.sources import find_files, pair
from metasynth.data_prep.volumes.volumes import Volume, read_image, read_labels, require_same_grid, to_ras
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.stats import spearmanr

from metasynth.predict.qc import expected_dice
from metasynth.predict.scan import segment
from metasynth.predict.shipped import named_model
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import load_model

STRENGTHS = {"none": (0.0,), "noise": (0.05, 0.1, 0.2, 0.4), "field": (0.2, 0.4, 0.8), "crop": (0.15, 0.3, 0.45)}


def degraded(image: Volume, labels: Volume, kind: str, strength: float, seed: int) -> tuple[Volume, Volume]:
    """A scan with its label map, both in RAS orientation, after what is done to the scan."""
    rng, data = np.random.default_rng(seed), image.data
    if kind == "noise":
        sigma = strength * np.percentile(data[data > 0], 99)
        data = np.abs(data + sigma * rng.standard_normal(data.shape, dtype=np.float32))
    if kind == "field":
        nodes = rng.normal(0, strength, (3, 3, 3))
        data = data * np.exp(zoom(nodes, np.array(data.shape) / 3, order=3, mode="nearest", grid_mode=True))
    kept = slice(None)
    if kind == "crop":
        at = np.flatnonzero(labels.data.any(axis=(0, 1)))
        cut = int(strength * len(at))
        kept = slice(at[0] + cut, None) if seed % 2 else slice(None, at[-1] + 1 - cut)
    shown = replace(image, data=np.ascontiguousarray(data[:, :, kept], dtype=np.float32))
    return shown, replace(labels, data=np.ascontiguousarray(labels.data[:, :, kept]))


def scored(model: TrainedModel, image: Volume, labels: Volume, mapping: LabelMapping) -> tuple[float, float, float]:
    """Mean Dice over the classes that are there, expected Dice, and the mean posterior of the label."""
    truth = mapping.apply(labels.data, "error", labels.where)
    found = segment(model, image, replace(labels, data=(labels.data > 0).astype(np.int64)))
    dice = []
    for k in range(1, len(found.mass)):
        own, true = found.labels == k, truth == k
        if true.any():
            dice.append(2 * np.count_nonzero(own & true) / (np.count_nonzero(own) + np.count_nonzero(true)))
    return float(np.mean(dice)), expected_dice(found)[0] or 0.0, float(found.certainty[found.labels > 0].mean())


def correlation(rows: list[tuple[float, float, float]], column: int) -> float:
    """Spearman's, of a column with the first."""
    table: NDArray[np.float64] = np.array(rows)
    return float(spearmanr(table[:, 0], table[:, column]).statistic)


def main() -> None:
    """Print a row a kind and strength, and the correlations over all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--images", "--labels"):
        parser.add_argument(name)
    parser.add_argument("--model", default="brain", help="one of the package, a file or a run; it is given masks")
    parser.add_argument("--mapping", default="muse-5")
    options = parser.parse_args()
    if None in (options.images, options.labels):
        print("needs --images and --labels")
        return
    torch.set_num_threads(1)
    model, mapping = load_model(named_model(options.model, None)), load_mapping(options.mapping)
    scans = pair(find_files([options.images], "--images"), find_files([options.labels], "--labels")).scans
    rows: dict[tuple[str, float], list[tuple[float, float, float]]] = defaultdict(list)
    for seed, scan in enumerate(scans):
        assert scan.image is not None
        assert scan.labels is not None
        image = read_image(scan.image)
        labels = to_ras(require_same_grid(image, read_labels(scan.labels)))
        image = to_ras(image)
        for kind, strengths in STRENGTHS.items():
            for strength in strengths:
                shown = degraded(image, labels, kind, strength, seed)
                rows[kind, strength].append(scored(model, *shown, mapping))
    print("| what is done | strength | Dice | expected Dice | mean posterior |\n|---|---|---|---|---|")
    for (kind, strength), found in rows.items():
        cells = (f"{value:.3f}" for value in np.mean(found, axis=0))
        print(f"| {kind} | {strength:g} | {' | '.join(cells)} |")
    everything = [row for found in rows.values() for row in found]
    print(f"\nrank correlation with Dice over {len(everything)}: ", end="")
    print(f"expected Dice {correlation(everything, 1):.3f}, mean posterior {correlation(everything, 2):.3f}")


if __name__ == "__main__":
    main()
