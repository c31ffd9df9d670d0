"""What a GPU takes for what this package does, within some minutes: run it first where a GPU is at hand.

Time and peak memory of a plain step and of hypergradients, of 64 slices of 192x192 and of 2 volumes of 96x96x96, in
float32, TF32 and bfloat16, in both layouts, beside `higher` and TorchOpt; whether a step ever waits for its data; a
timed piece of every study's ``paper`` preset with an estimate of the whole; and the noise study's ``standard`` preset
for the time that is left. Each part has its share of the minutes. What does not fit, into time or memory, is named as
unrun with the reason. The file is written after every row; docs/measurements/gpu.md says what is in it.

    python benchmarks/gpu.py --minutes 9 --json gpu.json [--parts steps,data,paper,noise] [--device cpu --size small]
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from common.gpu import data, noise, paper, steps
from common.gpu.results import PARTS, Budget, Results, say
from common.gpu.settings import settings_of

from metasynth.errors import MetasynthError, UsageError
from metasynth.interrupts import exit_status
from metasynth.running.device import configure_torch
from metasynth.running.environment import describe_environment
from metasynth.sizes import cores

MEASURES = {"steps": steps.measure, "data": data.measure, "paper": paper.measure, "noise": noise.measure}


def minutes_of(text: str) -> float:
    """UsageError unless it is a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"--minutes: expected a number above 0, got {text}")
    return value


def parts_of(text: str) -> list[str]:
    """In their order; UsageError if one is unknown."""
    asked = text.split(",")
    for part in asked:
        if part not in PARTS:
            raise UsageError(f"--parts: expected some of {','.join(PARTS)}, got {part!r}")
    return [part for part in PARTS if part in asked]


def place_of(text: str | None) -> Path | None:
    """Where the results go; UsageError if there is no such folder."""
    if text is None:
        return None
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--json: expected a file in a folder that there is, got {text}")
    return path


def machine(device: str, threads: int) -> dict[str, Any]:
    """Versions and hardware."""
    found = describe_environment(device, threads) | {"cuda": torch.version.cuda, "cores": cores()}
    if device.startswith("cuda"):
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "gpu_mib": gpu.total_memory / 2**20, "capability": f"{gpu.major}.{gpu.minor}"}
        found |= {"cudnn": torch.backends.cudnn.version()}
    return found


def run(options: argparse.Namespace) -> None:
    """Every part in turn."""
    minutes, parts, path = minutes_of(options.minutes), parts_of(options.parts), place_of(options.json)
    device, threads = configure_torch(options.device, None)
    settings = settings_of(options.size, device)
    asked = {"minutes": minutes, "parts_asked": parts, "size": options.size, "device": device}
    results = Results(path, {**asked, "machine": machine(device, threads)})
    budget = Budget(60 * minutes, parts)
    for part in parts:
        deadline = budget.of(part)
        say(f"== {part}: {deadline.left:.0f} s")
        MEASURES[part](settings, deadline, results)
    results.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="9", help="how long it may take")
    parser.add_argument("--json", metavar="FILE", help="also write all of it to this file")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: as its test has it")
    options = parser.parse_args()
    try:
        run(options)
    except MetasynthError as error:
        say(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt as error:
        say(f"Interrupted.{f' What was measured is in {options.json}' if options.json else ''}")
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
