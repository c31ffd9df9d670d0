"""Time and peak memory of steps: those of `hypergradients.py`, of slices and of volumes, in three precisions."""

import gc
import statistics
import time
from collections.abc import Iterator

import torch
from common.bilevel_steps import LAST, PLAIN, Method, Size, Step, methods
from common.gpu.results import Deadline, Results
from common.gpu.settings import PRECISIONS, Settings

from metasynth.errors import install_hint
from metasynth.training.selection import PeakMemory

TORCHOPT = "TorchOpt MetaAdam"
ROWS = (PLAIN, "Mixed", "FiniteDifference", "economical", "higher used directly", TORCHOPT)
"""Those of `common.bilevel_steps.methods` that are measured, each in every layout that it is there in."""


def synchronise(device: str) -> None:
    """Wait until what a device was asked to compute is there."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def free(device: str) -> None:
    """Give back what nothing holds, so that the next row begins with all of the memory."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def seconds_of(call: Step, device: str) -> float:
    """How long a call took, with all that it asked the device for."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def chosen(batch: int) -> Iterator[tuple[str, Method]]:
    """The rows that are measured, those in torch's own layout first."""
    found = methods(batch)
    for layout in ("", LAST):
        yield from ((name + layout, found[name + layout]) for name in ROWS if name + layout in found)


def measured(method: Method, size: Size, deadline: Deadline, share: Deadline, repeats: int) -> dict[str, float | int]:
    """Median seconds a training step, and MiB above what was held before the first; calls as the share allows."""
    step = method.step(size)
    memory = PeakMemory(size.device)
    held = memory.mib()
    first = seconds_of(step, size.device)
    deadline.require(first, "a call")
    taken = [seconds_of(step, size.device)]
    while len(taken) < repeats and share.left > taken[-1]:
        taken.append(seconds_of(step, size.device))
    return {
        "seconds": statistics.median(taken) / method.every,
        "first_s": first,
        "calls": len(taken),
        "peak_mib": memory.mib() - held,
    }


def measure(settings: Settings, deadline: Deadline, results: Results) -> None:
    """Every row; ``ratio`` is to the plain step of the same images, precision and layout, where that was measured."""
    wanted = [
        (images, precision, name, method)
        for images, size in settings.images.items()
        for precision in PRECISIONS
        for name, method in chosen(size.batch)
    ]
    if TORCHOPT not in methods(1):
        results.unrun("steps", TORCHOPT, f"TorchOpt is not installed ({install_hint('peers')})")
    plain: dict[tuple[str, str, bool], float] = {}
    for place, (images, precision, name, method) in enumerate(wanted):
        size, layout = settings.with_precision(images, precision), (images, precision, name.endswith(LAST))
        named = f"{images}, {precision}, {name}"
        with results.attempt("steps", named), PRECISIONS[precision].used():
            deadline.require()
            free(settings.device)
            share = Deadline(deadline.left / (len(wanted) - place))
            found = measured(method, size, deadline, share, settings.repeats)
            if name.startswith(PLAIN):
                plain[layout] = float(found["seconds"])
            ratio = found["seconds"] / plain[layout] if layout in plain else None
            results.add("steps", {"images": images, "precision": precision, "name": name, **found, "ratio": ratio})
