"""The commands that hand on what was learned to other programs; they import what they need when they run."""

import sys
from pathlib import Path

import click

from metasynth.cli.completion import complete_file
from metasynth.cli.options import OVERWRITE, PATH, QUIET, out_option
from metasynth.lines import tell

STAGE = "Which segmenter of a run that has several."
MODEL = click.argument("model", metavar="MODEL", shell_complete=complete_file)
SEGMENTER = click.option("--stage", metavar="NAME", help=STAGE)


@click.command()
@click.argument("run", type=PATH, shell_complete=complete_file)
@click.option(
    "--n", metavar="N", type=click.IntRange(1, 99_999), default=500, show_default=True, help="How many images."
)
@out_option("the data set: a folder DatasetXXX_Name", "DIR", required=True)
@click.option("--stage", metavar="NAME", help=f"{STAGE} The images are those that it was learned with in the end.")
@click.option("--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), help="Seed of every random draw; 0 by default.")
@QUIET
def nnunet(run: Path, n: int, out: Path, stage: str | None, seed: int | None, quiet: bool) -> None:
    """Write synthetic images as RUN has learned to make them, as a raw data set of nnU-Net to train on.

    They are of the label maps that the run has learned from: volumes, or slices as files of one plane. The classes are
    those of the run.
    """
    from metasynth.export.nnunet import check_name, write_nnunet
    from metasynth.export.run_images import run_images
    from metasynth.running.progress import Progress

    check_name(out)
    progress = Progress(quiet)
    made = run_images(run, stage, progress)
    progress.say(f"Images: {run} ({made.origin})")
    with progress.task("images", n) as task:
        write_nnunet(made, out, n, seed or 0, task.advance)
    tell(f"Data set: {out} ({n} images with their label maps)", sys.stdout)


@click.command()
@MODEL
@out_option("the model", "FILE.onnx", required=True)
@SEGMENTER
@OVERWRITE
def onnx(model: str, out: Path, stage: str | None, overwrite: bool) -> None:
    """Write MODEL as an ONNX file: images (B, 1, *S) to logits (B, K, *S), of any batch and size.

    MODEL is one of the package (metasynth models), a model file or the folder of a run. Its outputs are compared with
    those of the file. Classes, spacing, orientation and what is done to a scan are in the file's metadata.
    """
    from metasynth.export.described import card_of
    from metasynth.export.onnx_file import is_onnx, write_onnx
    from metasynth.outputs import Kind, Output, check_outputs
    from metasynth.predict.shipped import named_model
    from metasynth.predict.usable import check_usable
    from metasynth.segment.model_file import load_model

    path = named_model(model, stage)
    kind = Kind("ONNX file", (".onnx",), is_onnx)
    check_outputs([Output(f"--out {out}:", out, kind, overwrite, make_folder=False)], [path])
    trained = load_model(path)
    check_usable(trained)
    off = write_onnx(trained, out, card_of(path))
    tell(f"Model: {out} (its outputs differ by at most {off:.1e} from those of {path})", sys.stdout)


@click.command("monai-bundle")
@MODEL
@out_option("the bundle: a folder", "DIR", required=True)
@SEGMENTER
def monai_bundle(model: str, out: Path, stage: str | None) -> None:
    """Write MODEL as a MONAI bundle, which monai.bundle runs on folders of scans.

    MODEL is one of the package (metasynth models), a model file or the folder of a run. The bundle does to a scan what
    predict does; it refuses none.
    """
    from metasynth.export.described import card_of
    from metasynth.export.monai_bundle import write_bundle
    from metasynth.predict.shipped import named_model
    from metasynth.predict.usable import check_usable
    from metasynth.segment.model_file import load_model

    path = named_model(model, stage)
    trained = load_model(path)
    check_usable(trained)
    write_bundle(trained, out, card_of(path))
    tell(f"Bundle: {out} (of {path})", sys.stdout)


EXPORT_COMMANDS = (nnunet, onnx, monai_bundle)
