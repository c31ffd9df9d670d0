"""Processes that take the steps of the studies together, each in its turn when it is told so."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from metasynth.augment import GaussianNoise
from metasynth.bilevel import Processes
from metasynth.running.device import keep_freed_memory
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example
from metasynth.training.stages import bilevel_solver
from metasynth.training.streams import StepBatch
from metasynth.training.trainers import Supervised

CLASSES = 5
PLAIN = "plain"
Step = Callable[[], Any]


@dataclass(frozen=True)
class Problem:
    """What all steps share: square slices, a U-Net of these widths, and the inner steps of an unrolled one."""

    size: int
    images: int
    widths: tuple[int, ...]
    horizon: int

    @property
    def kinds(self) -> dict[str, OuterSettings | None]:
        """Steps by name; None: no hypergradient. The others are those of the studies, with their reference batch."""
        return {
            PLAIN: None,
            "Mixed": OuterSettings(strategy="mixed"),
            "FiniteDifference": OuterSettings(strategy="finite_difference"),
            f"Unrolled({self.horizon})": OuterSettings(horizon=self.horizon, every=self.horizon),
        }

    def step(self, kind: str, images: int, processes: Processes) -> Step:
        """A step of that kind on ``images`` of this process."""
        generator = torch.Generator().manual_seed(0)
        inner, outer = SegmenterSettings(widths=self.widths), self.kinds[kind]
        shape = (self.size, self.size)
        segmenter = inner.build(CLASSES, 2, generator, shape, (1.0, 1.0))
        drawn = torch.rand(images, 1, *shape, generator=generator)
        labels = torch.randint(CLASSES, (images, *shape), generator=generator)
        example = Example(drawn, labels, torch.randn(images, 1, *shape, generator=generator))
        if outer is None:
            trainer = Supervised(segmenter, inner, processes)
            return lambda: trainer.step(0, StepBatch(example, None, None))
        solver = bilevel_solver(segmenter, GaussianNoise(0.1), inner, outer, processes)
        return lambda: solver.step([example] * outer.horizon, example, example)


@contextmanager
def exchanges() -> Iterator[list[int]]:
    """The bytes of every average that is taken meanwhile, and of what is agreed on before it."""
    sizes: list[int] = []
    original = dist.all_reduce

    def noted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(tensor.numel() * tensor.element_size())
        return original(tensor, *args, **options)

    dist.all_reduce = noted
    try:
        yield sizes
    finally:
        dist.all_reduce = original


class Group:
    """So many processes of one thread, which wait until they are told what to do."""

    def __init__(self, count: int, problem: Problem, parts: tuple[int, ...], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            given = (theirs, rank, count, folder / f"store{count}", problem, parts)
            process = context.Process(target=_serve, args=given, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def exchanged(self) -> dict[str, list[int]]:
        """`exchanges` of each kind of step, once all are ready; asked for once, before all else."""
        found: dict[str, list[int]] = self._all()[0]
        return found

    def seconds(self, *what: Any) -> float:
        """Until the last of them has done it: ('together' or 'apart', kind, images of each) or ('average', bytes)."""
        for pipe in self._pipes:
            pipe.send(what)
        return max(self._all())

    def end(self) -> None:
        """Let them go."""
        for pipe in self._pipes:
            pipe.send(())
        for process in self._processes:
            process.join()

    def _all(self) -> list[Any]:
        return [pipe.recv() for pipe in self._pipes]


def _serve(pipe: Connection, rank: int, count: int, store: Path, problem: Problem, parts: tuple[int, ...]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    steps: dict[tuple[Any, ...], Step] = {}
    exchanged: dict[str, list[int]] = {}
    for kind in problem.kinds:
        for part in parts:
            steps["apart", kind, part] = problem.step(kind, part, Processes())
            steps["apart", kind, part]()
        steps["together", kind, parts[0]] = together = problem.step(kind, parts[0], Processes.current())
        together()  # the first step checks what later ones need not
        with exchanges() as exchanged[kind]:
            together()
    pipe.send(exchanged)
    while what := pipe.recv():
        step = _average(what[1]) if what[0] == "average" else steps[what]
        dist.barrier()
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)
    dist.destroy_process_group()


def _average(size: int) -> Step:
    tensor = torch.zeros(max(1, size // 4))
    return lambda: dist.all_reduce(tensor)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
