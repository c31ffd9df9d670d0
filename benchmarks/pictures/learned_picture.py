"""One picture of what a run of `real_world` learned and what it changed: the picture of docs/guides/comparison.md.

A scan of a test person; the image that the synthesis makes of that person's structures where it starts and as it was
learned, with the same draws; and the segmentations of the scan, the truth first, with the person's mean Dice. No model
has seen the person.

    python benchmarks/pictures/learned_picture.py RUN --out learned.png
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb
from metasynth.experiments.real_images.evaluation import mean_dice

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.report.style import bare, color, new_figure, png, style
from metasynth.segment.model_file import load_model, model_path
from metasynth.training.augmenter_file import augmenter_name, load_augmenter

METHODS = {"naive": "naive", "estimated": "estimated priors", "synthesis_estimated": "Learn2Synth"}
OPACITY = 0.55


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draw", type=int, default=2, help="Seed of the synthetic images.")
    parser.add_argument("--slice", type=float, default=0.5, help="Which of the person's slices, as a fraction.")
    return parser.parse_args()


def stage(method: str, subjects: int) -> str:
    return method if method == "naive" else f"n={subjects}/{method}"


@torch.no_grad()
def main() -> None:
    options = parsed()
    split = json.loads((options.run / "split.json").read_text())
    rows = json.loads((options.run / "results.json").read_text())["rows"]
    subjects = next(row["subjects"] for row in rows if row["method"] == "synthesis_estimated")
    data = json.loads((options.run / "config.json").read_text())["data"]
    with Cache(Path(data["path"])) as cache:
        person = SliceDataset(cache, split["test"][:1])
        at = int(options.slice * len(person))
        shown = person.read([at])
        names = cache.class_names
        segmented = {}
        for method, title in METHODS.items():
            network = load_model(model_path(options.run, f"{stage(method, subjects)}/best")).network
            dice = mean_dice(lambda images, network=network: network(images).argmax(1), person)
            segmented[f"{title}, {dice:.2f}"] = network(shown.images).argmax(1)[0]
    learned = load_augmenter(options.run / augmenter_name(stage("synthesis_estimated", subjects)))
    draws = learned.start.draw(shown.images, torch.Generator().manual_seed(options.draw))
    panels = {
        "scan": (shown.images[0, 0], None),
        "synthetic, at the start": (learned.start(shown.structures, draws)[0, 0], None),
        "synthetic, as learned": (learned.augmenter(shown.structures, draws)[0, 0], None),
        **{title: (shown.images[0, 0], labels) for title, labels in {"truth": shown.labels[0], **segmented}.items()},
    }
    palette = np.array([(0.0,) * 4, *((*to_rgb(color(k)), OPACITY) for k in range(len(names) - 1))])
    with style():
        figure = new_figure(1.45 * len(panels), 1.75)
        for axes, (title, (image, labels)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if labels is not None:
                axes.imshow(palette[labels], interpolation="nearest")
            axes.set_title(title, fontsize=7)
            bare(axes)
        options.out.write_bytes(png(figure))
    print(f"{options.out}: {split['test'][0]}, slice {at} of {len(person)}")


if __name__ == "__main__":
    main()
