"""A study that takes no time: it adds up seeded draws, one a step, and can be stopped at a step."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.tables import Table
from metasynth.running.checkpoint import load_checkpoint, save_checkpoint
from metasynth.running.prepared import PreparedData
from metasynth.running.records import RunFolder
from metasynth.running.seeding import generator_for
from metasynth.running.study import Experiment, StudyContext


@dataclass(frozen=True)
class Outer:
    lr: float = 0.1

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True)
class Tiny:
    steps: int = 4
    kind: Literal["normal", "uniform"] = "normal"
    outer: Outer = field(default_factory=Outer)


@dataclass
class Stop:
    """Raised once before step ``at``, to stand for whatever ends a run."""

    at: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)


def tiny_experiment(stop: Stop | None = None) -> Experiment:
    stop = stop or Stop()

    def prepare(config: Any, data: Path | None, progress: Any) -> PreparedData:
        path = data or Path("embedded.h5")
        return PreparedData(path, "digest of " + path.name)

    def run(context: StudyContext) -> dict[str, Any]:
        folder, checkpoint = context.folder, context.folder.checkpoints / "last.pt"
        state = {"total": torch.zeros(()), "step": 0, "position": 0}
        if context.resume and checkpoint.is_file():
            state = load_checkpoint(checkpoint)
        folder.truncate(state["position"])
        total = state["total"]
        with context.progress.task("tiny", context.config.steps, state["step"]) as task:
            for step in range(state["step"], context.config.steps):
                if stop.at == step:
                    stop.at = None
                    raise stop.error
                draw = torch.randn((), generator=generator_for(context.seed, "tiny", step))
                total = total + context.config.outer.lr * draw
                folder.append({"step": step, "total": float(total)})
                if step % 2:
                    after = {"total": total, "step": step + 1, "position": folder.sync()}
                    save_checkpoint(checkpoint, after)
                task.advance(note=f"total {float(total):.2f}")
        return {"rows": [{"total": float(total), "dice": {"clean": {"mean": 0.5}}}]}

    def report(folder: RunFolder) -> ReportContent:
        metrics = folder.read_metrics()
        series = Series("total", [m["step"] for m in metrics], [m["total"] for m in metrics], truth=0.0)
        return ReportContent(
            title="Does <it> add up?",
            summary=["It adds up."],
            tables=[Table.from_records("One row.", folder.results["rows"], {"total": "Total"})],
            figures=[ReportFigure("total", "Total against step.", trajectory([series]))],
        )

    presets = {"quick": Tiny(), "standard": Tiny(steps=np.int64(8).item())}
    return Experiment("tiny", "Does it add up?", presets, prepare, run, report)
