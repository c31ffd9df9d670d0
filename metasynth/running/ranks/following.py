"""What the processes of a run do but the first, which torchrun started beside it."""

import os
import shutil
from functools import partial
from logging import CRITICAL, getLogger

from metasynth.errors import MetasynthError, RunError
from metasynth.files import first_line
from metasynth.running.device import configure_torch
from metasynth.running.progress import Progress
from metasynth.running.ranks.place import own_place
from metasynth.running.ranks.ranks import Ranks
from metasynth.running.records import RunFolder
from metasynth.running.seeding import seed_everything
from metasynth.running.study import Experiment, StudyContext


def follow(experiment: Experiment, ranks: Ranks) -> None:
    """Go through a study beside the first process, which calls `execute`; nothing is said, and nothing kept.

    Raises
    ------
    RunError
        What this process alone met.
    SystemExit
        With status 1, where the first says what was wrong.
    """
    given = ranks.follow()
    if given is None:
        return
    getLogger("metasynth").setLevel(CRITICAL)
    config, preset, seed, device, threads = given["shared"]
    path, data = given["places"]
    device, threads = configure_torch(f"cuda:{ranks.local}" if device.startswith("cuda") else device, threads)
    with own_place() as place, open(os.devnull, "w", encoding="utf-8") as nowhere:
        own, manifest = place / "run", given["manifest"]
        if given["resume"]:
            shutil.copytree(path, own, ignore=shutil.ignore_patterns(".*", "figures"))
        make = partial(RunFolder.resume, config=config) if given["resume"] else RunFolder.create
        ranks.wait()  # what was copied may change from here on
        progress = Progress(True, nowhere)
        with make(own, manifest) as folder:
            context = StudyContext(
                config, preset, seed, device, threads, folder, data, given["resume"], progress, given["others"], ranks
            )
            seed_everything(seed)
            try:
                with ranks.together(experiment.name):
                    experiment.run(context)
            except (MetasynthError, ValueError, KeyboardInterrupt):
                raise SystemExit(1) from None
            except Exception as error:
                raise RunError(f"process {ranks.rank}: {type(error).__name__}: {first_line(error)}") from error
