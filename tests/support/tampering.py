"""Every study at a size that takes a second or two, and what can be done to the files of its runs."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from metasynth.experiments import hyper_cleaning, inu, noise, real_world, ridge, sinusoid, unpaired

from metasynth.run import execute
from metasynth.running.records import RunFolder

_IMAGES = {
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": "6",
    "outer.batch_size": "2",
    "outer.warmup": "2",
    "outer.every": "1",
    "outer.until": "0",
    "outer.horizon": "1",
    "outer.mean_of": "1",
    "synthesis.elastic_nodes": "4",
    "pace.checkpoint_every": "2",
    "pace.workers": "0",
}
_RECOVERY = {**_IMAGES, "sigma": "0.1", "test": "0.1", "test_repeats": "1"}

STUDIES: dict[str, tuple[Any, dict[str, str]]] = {
    "noise": (noise.EXPERIMENT, _RECOVERY),
    "inu": (inu.EXPERIMENT, {**_RECOVERY, "c": "0.2,0.5,0.8", "start_c": "0.4"}),
    "real_world": (
        real_world.EXPERIMENT,
        {
            **_IMAGES,
            "methods": "naive,parametric_fixed,finetuned",
            "learned.network": "4,4",
            "finetune.steps": "3",
            "baseline.elastic_nodes": "4",
            "subjects.train": "2",
            "select_every": "2",
        },
    ),
    "unpaired": (
        unpaired.EXPERIMENT,
        {
            **_IMAGES,
            "methods": "naive,nonparametric",
            "discriminator.widths": "3,4",
            "discriminator.batch_size": "2",
            "discriminator.steps": "6",
            "generator.network": "2,2",
            "baseline.elastic_nodes": "4",
        },
    ),
    "hyper_cleaning": (
        hyper_cleaning.EXPERIMENT,
        {"train": "60", "validation": "40", "batch_size": "20", "steps": "12", "repeats": "2"},
    ),
    "sinusoid": (
        sinusoid.EXPERIMENT,
        {"widths": "8,8", "steps": "12", "tasks": "4", "test_tasks": "6"},
    ),
    "ridge": (
        ridge.EXPERIMENT,
        {"steps": "12", "inner_steps": "10", "problems": "1", "features": "4", "train": "20", "validation": "20"},
    ),
}


def carry_out(
    study: str, run: Path, cache: Path, *, seed: int = 1, resume: bool = False, changes: Mapping[str, str] = {}
) -> None:
    """Begin a run of a study, with changes of its settings, or go on with it; the cache is for those that need one."""
    experiment, settings = STUDIES[study]
    settings = {**settings, **changes}
    overrides = [] if resume else [f"{key}={value}" for key, value in settings.items()]
    given = None if resume or "segmenter.steps" not in settings else cache
    options: Any = {"resume": resume, "device": "cpu", "threads": 1, "quiet": True}
    execute(experiment, run, overrides=overrides, seed=None if resume else seed, data=given, **options)


def stopped(study: str, run: Path, cache: Path, records: int, *, seed: int = 1) -> Path:
    """A run that was interrupted when it had written so many records."""
    append, count = RunFolder.append, itertools.count()

    def appended(folder: RunFolder, record: Any) -> None:
        if next(count) == records:
            raise KeyboardInterrupt
        append(folder, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "append", appended)
        with pytest.raises(KeyboardInterrupt):
            carry_out(study, run, cache, seed=seed)
    return run


def content(run: Path) -> dict[str, bytes]:
    """The files of a run."""
    paths = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(paths)}


def outcome(run: Path) -> dict[str, Any]:
    """The files of a run that its settings and data decide; the results without times and memory."""
    found: dict[str, Any] = content(run)
    timed = ("environment.json", "SHA256SUMS", "report.html", "table.csv", "table.md")
    found = {name: data for name, data in found.items() if name not in timed and not name.startswith("checkpoints/")}
    rows = json.loads(found.pop("results.json"))["rows"]
    clock = ("wall_s", "total_s", "peak_mib")
    found["rows"] = [{key: value for key, value in row.items() if key not in clock} for row in rows]
    return {name: data for name, data in found.items() if not name.startswith("figures/")}


def tamperings(run: Path, other: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What can be done to the files of a run, each in words: edits, losses, and files of another run and each other."""
    files = content(run)
    for name, data in files.items():
        yield f"{name} deleted", partial(_remove, name=name)
        yield f"{name} a folder", partial(_to_folder, name=name)
        others = {"of another run": content(other).get(name, data), "cut short": data[: len(data) // 2]}
        for what, new in {**others, "emptied": b"", "changed": _changed(data)}.items():
            if new != data:
                yield f"{name} {what}", partial(_write, {name: new})
    for one, two in itertools.pairwise(name for name in files if name.endswith((".pt", ".json"))):
        yield f"{one} and {two} exchanged", partial(_write, {one: files[two], two: files[one]})
    for folder in ("checkpoints", "models", "figures"):
        if (run / folder).is_dir():
            yield f"{folder} deleted", partial(_remove, name=folder)
            yield f"{folder} a file", partial(_to_file, name=folder)


def _changed(data: bytes) -> bytes:
    """One digit in the midst is another, or one byte where there is none."""
    at = next((i for i in range(len(data) // 2, len(data)) if data[i : i + 1].isdigit()), len(data) // 2)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _write(files: dict[str, bytes], run: Path) -> None:
    for name, data in files.items():
        (run / name).write_bytes(data)


def _remove(run: Path, name: str) -> None:
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def _to_folder(run: Path, name: str) -> None:
    _remove(run, name)
    (run / name).mkdir()


def _to_file(run: Path, name: str) -> None:
    _remove(run, name)
    (run / name).write_text("")
