"""``metasynth prep remap``: a cache of the same people whose images have another contrast."""

import sys
from pathlib import Path

import click

from metasynth.cli.completion import complete_curve
from metasynth.cli.options import OVERWRITE, PATH, QUIET, out_option
from metasynth.cli.prep_options import NO_MONTAGE
from metasynth.lines import tell
from metasynth.text import by


@click.command()
@click.argument("cache", type=PATH)
@click.option(
    "--curve",
    metavar="NAME|X:Y,X:Y",
    required=True,
    shell_complete=complete_curve,
    help="What becomes of intensities: inverted (1 - x), bent (not monotone), or points, x from 0 to 1, that lines "
    "connect.",
)
@out_option("the cache (HDF5)", "FILE", required=True)
@OVERWRITE
@NO_MONTAGE
@QUIET
def remap(cache: Path, curve: str, out: Path, overwrite: bool, no_montage: bool, quiet: bool) -> None:
    """Make a cache of the same people with another contrast, to test on: a curve is applied to the images of CACHE.

    People, slices and labels stay, and the background stays 0. The images are no scans any more: they are marked
    REMAPPED.
    """
    from metasynth.data.schema import CACHE
    from metasynth.data_prep.remapping.curves import parse_curve
    from metasynth.data_prep.remapping.remap import remap_cache
    from metasynth.outputs import PICTURE, Output, check_outputs
    from metasynth.running.progress import Progress

    chosen, picture = parse_curve(curve), out.with_name(f"{out.stem}.png")
    beside = [] if no_montage else [Output(f"--out {out}: {picture}", picture, PICTURE, overwrite, make_folder=False)]
    check_outputs([Output(f"--out {out}:", out, CACHE, overwrite, make_folder=False), *beside], [cache])
    with Progress(quiet).counter("items") as follow:
        n, *shape = remap_cache(cache, out, chosen, follow)
    tell(f"Cache: {out} ({n} {'volumes' if len(shape) == 3 else 'slices'} of {by(shape)}), REMAPPED", sys.stdout)
    if not no_montage:
        from metasynth.data_prep.montage import write_montage  # matplotlib takes a second

        write_montage(out, picture)
        tell(f"Montage: {picture}", sys.stdout)
