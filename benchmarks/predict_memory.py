"""The largest memory that `metasynth predict` takes, and its time, on heads of several sizes.

Each is a process of its own, from the scan's file to the label map's: a phantom with noise, and a U-Net with random
weights, which looks at whole heads along three axes (or one, `--views 1`).

    python benchmarks/predict_memory.py [--views 3] [--threads 2] [--widths 16,32,64,128] [--only 0]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from metasynth.segment import ModelDescription, UNet, save_model

VIEWS = {3: ("coronal,axial,sagittal", "IR,PR,IP"), 1: ("coronal", "IR")}


@dataclass(frozen=True)
class Case:
    """A scan's shape and spacing in mm, and a model's spacing and number of classes."""

    shape: tuple[int, int, int]
    scan_mm: float
    model_mm: float
    classes: int


CASES = (
    Case((256, 256, 256), 1.0, 1.0, 6),
    Case((256, 256, 256), 1.0, 1.0, 25),
    Case((512, 512, 400), 0.5, 1.0, 25),
    Case((512, 512, 400), 1.0, 1.0, 6),
    Case((256, 256, 256), 1.0, 2.0, 6),
)


def write_scan(path: Path, shape: tuple[int, int, int], spacing: float) -> None:
    """An ellipsoid that fills most of the field, with waves and noise in it and noise around it; int16 on disk."""
    rng = np.random.default_rng(0)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32).reshape(s) for n, s in zip(shape, _SIDES, strict=True))
    radius = np.sqrt((x / 0.9) ** 2 + (y / 0.95) ** 2 + (z / 0.92) ** 2)
    image = np.where(radius < 1, 500 + 200 * np.sin(9 * x) * np.cos(8 * y) * np.sin(7 * z), 10)
    image += 10 * rng.standard_normal(shape, dtype=np.float32)
    nib.save(nib.Nifti1Image(image.clip(0).astype(np.int16), np.diag([spacing] * 3 + [1.0])), path)


_SIDES = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))


def write_model(path: Path, case: Case, views: int, widths: tuple[int, ...]) -> None:
    """A U-Net with random weights for whole heads."""
    axis, orientation = VIEWS[views]
    length = round(192 / case.model_mm)
    description = ModelDescription(
        class_names=("background", *(f"class {k}" for k in range(1, case.classes))),
        mapping="none",
        spacing_mm=(case.model_mm,) * 2,
        axis=axis,
        orientation=orientation,
        shape=(length, length),
        brain_only=False,
        scaled_by="head",
    )
    torch.manual_seed(0)
    save_model(path, UNet(case.classes, ndim=2, widths=widths, norm="instance"), description)


def measure(case: Case, views: int, threads: int, widths: tuple[int, ...]) -> tuple[float, float]:
    """Largest resident memory in GB and seconds of one prediction; this process's other children took less."""
    with tempfile.TemporaryDirectory() as folder:
        scan, model, out = (Path(folder) / name for name in ("scan.nii.gz", "model.pt", "out"))
        write_scan(scan, case.shape, case.scan_mm)
        write_model(model, case, views, widths)
        command = [sys.executable, "-m", "metasynth", "predict", scan, "--model", model, "--out", out, "--quiet"]
        start = time.perf_counter()
        subprocess.run([*map(str, command), "--threads", str(threads), "--device", "cpu", "--qc"], check=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, choices=VIEWS, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", default="16,32,64,128", help="Of the network's levels.")
    parser.add_argument("--only", type=int, help="this case alone")
    options = parser.parse_args()
    if options.only is None:
        print("| scan | voxels (mm) | model (mm) | classes | views | memory (GB) | seconds |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for k in range(len(CASES)):  # in a process of its own: the largest child is what can be asked for
            own = ["--views", str(options.views), "--threads", str(options.threads), "--widths", options.widths]
            subprocess.run([sys.executable, __file__, *own, "--only", str(k)], check=True)
        return
    case = CASES[options.only]
    memory, seconds = measure(case, options.views, options.threads, tuple(map(int, options.widths.split(","))))
    size = " x ".join(map(str, case.shape))
    cells = (size, case.scan_mm, case.model_mm, case.classes - 1, options.views, f"{memory:.2f}", f"{seconds:.0f}")
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
