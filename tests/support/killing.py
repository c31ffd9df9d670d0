"""Commands in processes that SIGKILL ends around a change of a file's name: the n-th rename, removal or new folder.

Or at an inner step of a bilevel training, for what is kept between such changes.

`Commands` is the side of the tests. This module, run as a program, is the other side: it imports the package once and
carries out every command in a fork of its own. The changes of processes that a command starts count too, by the module
that Python imports first there (`in_children`).
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TESTS = Path(__file__).parents[1]
IN_CHILDREN = TESTS / "in_children"
VARIABLE = "METASYNTH_TEST_KILL"  # COUNTER:NUMBER:WHEN
CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir")

When = Literal["before", "after"]


@dataclass(frozen=True)
class Done:
    """How a command ended: its status as of `subprocess`, how often it changed a name, and what it said."""

    status: int
    changes: int
    output: str


class Commands:
    """A program that carries commands out in forks of itself, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        paths = os.pathsep.join(map(str, [IN_CHILDREN, TESTS, *filter(None, [os.environ.get("PYTHONPATH")])]))
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        environment["METASYNTH_CACHE"] = str(folder / "out" / "kept")
        command = [sys.executable, str(Path(__file__))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, cwd=folder)

    def __call__(self, command: Sequence[object], number: int = -1, when: When = "before", step: int = -1) -> Done:
        """Carry a command out; ``number``: of the change around which it is killed, if it comes so far.

        ``step``: the inner step (from 0) of a bilevel training at which it is killed, when its data have come.
        """
        asked = {"command": list(map(str, command)), "number": number, "when": when, "step": step}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        assert self._process.stdout is not None
        return Done(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the program."""
        self._process.communicate()


def kill_around(counter: Path, number: int, when: When) -> None:
    """Have this process killed before or after the change that is the ``number``-th of all that count here."""

    def hooked(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            with counter.open("ab") as file:
                due = file.tell() == number
                file.write(b".")
            if due and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return change(*arguments, **named)
            finally:
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return changed

    for name in CHANGES:
        setattr(os, name, hooked(getattr(os, name)))


def kill_at_step(step: int) -> None:
    """Have this process killed when it is to take an inner step of a bilevel training, or to keep it for later."""
    from metasynth.training.trainers import Window

    add = Window.add

    def ended(window: Window, index: int, inner: Any) -> Any:
        if index == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return add(window, index, inner)

    setattr(Window, "add", ended)  # noqa: B010


def main() -> None:
    """Read commands, a line each, and answer with a line."""
    import torch

    import metasynth.cli.main

    _import_all()
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        output, counter = Path("output.txt"), Path("changes").resolve()
        counter.write_bytes(b"")
        child = os.fork()
        if child == 0:
            _carry_out(metasynth.cli.main.main, asked, output, counter)
        _, status = os.waitpid(child, 0)
        told = output.read_text(errors="replace")
        print(json.dumps([os.waitstatus_to_exitcode(status), counter.stat().st_size, told]), flush=True)


def _import_all() -> None:
    """What commands import when they run."""
    import metasynth.data_prep.cohorts.cohort
    import metasynth.data_prep.collect
    import metasynth.experiments.noise

    import metasynth.predict.evaluate
    import metasynth.predict.folder
    import metasynth.report.grid
    import metasynth.report.html  # noqa: F401


def _carry_out(command: Any, asked: dict[str, Any], output: Path, counter: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ[VARIABLE] = f"{counter}:{asked['number']}:{asked['when']}"
    kill_around(counter, asked["number"], asked["when"])
    if asked["step"] >= 0:
        kill_at_step(asked["step"])
    status = 1
    try:
        command(asked["command"], prog_name="metasynth")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
