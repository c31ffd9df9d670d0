"""What is measured of one library on one problem, in a process of its own."""

import contextlib
import logging
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.peers import problems
from benchmarks.peers.libraries import Library
from benchmarks.peers.lines import user_lines
from benchmarks.peers.memory import forget_peak, held_mib, peak_mib
from benchmarks.peers.problem import Problem, differences, directions, values_of
from metasynth.running.device import keep_freed_memory

BEFORE = 2
"""Outer steps with θ as it is before the one whose hypergradient is compared: what a library loses of a state shows."""
WARM_UP = 20


class Unable(Exception):
    """A library cannot express a problem; says why."""


class Measured:
    """A library on a problem; it is imported here.

    Parameters
    ----------
    library : Library
    problem : str
    tiny : bool
        The problem in the size of a test.

    Raises
    ------
    Unable
        The library cannot express the problem.
    ImportError
        It is not there.
    """

    def __init__(self, library: Library, problem: str, tiny: bool) -> None:
        module = library.load()
        if problem in module.UNABLE:
            raise Unable(module.UNABLE[problem])
        self._solver, self._make, self._tiny = module.SOLVERS[problem], problems.load(problem).make, tiny

    def lines(self) -> int:
        """Of user code."""
        return user_lines(self._solver)

    def _fresh(self, dtype: torch.dtype) -> Problem:
        return self._make(self._tiny, dtype)

    def error(self, truth: list[float]) -> float:
        """|D h - truth| / |truth| with D the directions: of steepest descent at a rate of one, which moves θ by -h."""
        problem, wanted = self._fresh(torch.float64).with_steepest_descent(0.0), torch.tensor(truth).double()
        along, step = directions(problem.outer), self._solver(problem)
        for _ in range(BEFORE):
            step()
        before = values_of(problem.outer)
        problem.outer_optimizer.param_groups[0]["lr"] = 1.0
        step()
        found = along @ (before - values_of(problem.outer))
        return ((found - wanted).norm() / wanted.norm()).item()

    def peak(self) -> float:
        """MiB of the first two steps, above what was held before them; in float32, as all that follows."""
        problem = self._fresh(torch.float32)
        self._outer, self._step = problem.outer, self._solver(problem)
        before = held_mib()
        forget_peak()
        for _ in range(2):
            self._step()
        return peak_mib() - before

    def seconds(self) -> float:
        """Of the processor, for one step."""
        start = time.process_time()
        self._step()
        return time.process_time() - start

    def growth(self, steps: int) -> float:
        """MiB that are held more after so many steps, once warm; ArithmeticError if they led nowhere."""
        for _ in range(WARM_UP):
            self._step()
        before = held_mib()
        for _ in range(steps):
            self._step()
        if not values_of(self._outer).isfinite().all():
            raise ArithmeticError(f"the outer parameters are not finite after {steps} steps")
        return held_mib() - before


def differences_of(problem: str, tiny: bool) -> list[float]:
    """Derivatives of the outer loss along directions of θ, by differences in float64."""
    make = problems.load(problem).make
    return differences(make(tiny, torch.float64), BEFORE, directions(make(tiny, torch.float64).outer)).tolist()


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    (first, *_) = str(error).splitlines() or [""]
    return first if isinstance(error, Unable) else f"{type(error).__name__}: {first}"


def serve(connection: Connection, library: Library, problem: str, tiny: bool) -> None:
    """Answer ``(name, arguments)`` by ``(value, None)``, and an exception, which ends it, by ``(None, reason)``."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    logging.disable(logging.INFO)  # Betty tells of every engine
    warnings.simplefilter("ignore")  # peers use what torch has deprecated
    try:
        measured = Measured(library, problem, tiny)
        while (order := connection.recv()) is not None:
            name, arguments = order
            connection.send((getattr(measured, name)(*arguments), None))
    except Exception as error:
        connection.send((None, reason_of(error)))


class Worker:
    """A process that serves; all that is asked after a failure is answered by None, and ``reason`` says why."""

    def __init__(self, context: Any, library: Library, problem: str, tiny: bool) -> None:
        self.reason: str | None = None
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, library, problem, tiny), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> None:
        """Let it begin a method of `Measured`."""
        with contextlib.suppress(OSError):  # it may have failed before it was asked, and has then said why
            self._connection.send((name, arguments))

    def answer(self) -> Any:
        """What the method gave that was asked for."""
        if self.reason is not None:
            return None
        try:
            value, self.reason = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            self.reason = f"its process ended with status {self._process.exitcode}"
            return None
        return value

    def close(self) -> None:
        """End the process."""
        if self.reason is None:
            self._connection.send(None)
        self._process.join()
