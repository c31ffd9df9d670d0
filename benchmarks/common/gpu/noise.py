"""The noise study's ``standard`` preset, for the time that is left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common.gpu.results import Deadline, OutOfTime, Results
from common.gpu.settings import Settings
from common.made_cache import make_cache

from metasynth.running.records import CONFIG, METRICS, RESULTS

PATIENCE_S = 30.0
"""With a run that was asked to end: a step, and those that make its data."""
BETWEEN_LOOKS_S = 0.05


def command(settings: Settings, run: Path) -> list[str]:
    """What a user would type."""
    words = ["run", "noise", *settings.noise, "--out", str(run), "--device", settings.device, "--quiet"]
    if not settings.cohort:
        size = next(one.size for one in settings.images.values() if one.ndim == 2)
        make_cache(run.with_name("images.h5"), (size, size), settings.items[0])
        words += ["--data", str(run.with_name("images.h5"))]
    return [sys.executable, "-m", "metasynth", *words]


def steps_done(run: Path) -> dict[str, int]:
    """Steps that are recorded, by stage."""
    metrics = run / METRICS
    text = metrics.read_text(encoding="utf-8") if metrics.is_file() else ""
    return dict(Counter(json.loads(line)["stage"] for line in text.splitlines(keepends=True) if line.endswith("\n")))


def steps_in_all(run: Path) -> int:
    """Steps of the whole run: three trainings of each level, by its settings."""
    config = json.loads((run / CONFIG).read_text(encoding="utf-8"))["config"]
    return len(config["sigma"]) * (3 if config["baselines"] else 1) * config["segmenter"]["steps"]


def learned(run: Path) -> list[dict[str, Any]]:
    """What a finished run found."""
    rows = json.loads((run / RESULTS).read_text(encoding="utf-8"))["rows"]
    return [{key: row[key] for key in ("sigma_true", "sigma_learned")} for row in rows if row["model"] == "L"]


def measure(settings: Settings, deadline: Deadline, results: Results) -> None:
    """The run in a process of its own, which is interrupted where it does not come to its end."""
    with tempfile.TemporaryDirectory() as folder, results.attempt("noise", "the run"):
        deadline.require()
        run = Path(folder) / "run"
        begun = time.monotonic()
        process = subprocess.Popen(
            command(settings, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        prepared = _wait_for_folder(process, run, deadline) - begun
        finished = _ended(process, deadline)
        seconds, done = time.monotonic() - begun, steps_done(run)
        if not done:
            raise OutOfTime(f"out of time after {seconds:.0f} s, before the first step")
        share = sum(done.values()) / steps_in_all(run)
        row = {"finished": finished, "prepared_s": prepared, "seconds": seconds, "share_of_steps": share}
        whole = (prepared + (seconds - prepared) / share) / 3600
        found = learned(run) if finished else []
        results.add("noise", {**row, "whole_h": whole, "steps": done, "learned": found})
        if not finished:
            results.unrun("noise", "the rest of the run", f"out of time after {share:.1%} of its steps")


def _wait_for_folder(process: "subprocess.Popen[str]", run: Path, deadline: Deadline) -> float:
    """When the run has its data, or will not have them."""
    while process.poll() is None and deadline.left and not (run / CONFIG).is_file():
        time.sleep(BETWEEN_LOOKS_S)
    return time.monotonic()


def _ended(process: "subprocess.Popen[str]", deadline: Deadline) -> bool:
    """Whether it has come to its end by then, else it is interrupted; RuntimeError, by its last line, if it failed."""
    try:
        told = process.communicate(timeout=deadline.left)[1]
    except subprocess.TimeoutExpired:
        _interrupt(process)
        return False
    if process.returncode:
        raise RuntimeError((told.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
    return True


def _interrupt(process: "subprocess.Popen[str]") -> None:
    """As Ctrl-C does; what does not listen, with all that it started, is killed."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
