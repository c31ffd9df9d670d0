"""How the runs of a grid are carried out: by processes of this command, by the jobs of a launcher, or by others."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metasynth.errors import UsageError
from metasynth.lines import tell

if TYPE_CHECKING:
    from metasynth.running.grid_folder import GridFolder

LAUNCHER_OPTIONS = (
    click.option(
        "--launcher",
        type=click.Choice(["slurm", "local"]),
        help="Who carries the runs out, as jobs that go on without this process: a cluster, or this machine.",
    ),
    click.option(
        *("--launcher-set", "launcher_texts"),
        metavar="KEY=VALUE,...",
        multiple=True,
        help="What the launcher is told of each job, such as partition=gpu,timeout_min=240; repeatable.",
    ),
    click.option("--print-commands", is_flag=True, help="Print a shell command for each run instead of running any."),
)


@dataclass(frozen=True)
class Means:
    """How the runs of a grid are to be carried out; None and empty leave it open."""

    jobs: int | None = None
    launcher: str | None = None
    launcher_texts: tuple[str, ...] = ()
    print_commands: bool = False

    @property
    def options(self) -> list[str]:
        """The options that said so."""
        given = {
            "--jobs": self.jobs,
            "--launcher": self.launcher,
            "--launcher-set": self.launcher_texts,
            "--print-commands": self.print_commands,
        }
        return [name for name, value in given.items() if value]

    def to_go_on(self, experiment: str, out: Path) -> str:
        """The command that goes on with the runs in ``out``, by the same launcher if there is one."""
        words = ["metasynth", "run", experiment, "--resume"]
        if self.launcher:
            words += ["--launcher", self.launcher, *(["--jobs", str(self.jobs)] if self.jobs else [])]
            words += [word for text in self.launcher_texts for word in ("--launcher-set", text)]
        return shlex.join([*words, "--out", str(out)])

    @property
    def elsewhere(self) -> bool:
        """Whether runs are carried out on other machines, whose memory and GPUs are not this one's."""
        return self.print_commands or self.launcher == "slurm"

    def check(self) -> None:
        """Raise UsageError if they do not go together."""
        if self.launcher_texts and not self.launcher:
            raise UsageError(f"--launcher-set {self.launcher_texts[0]}: needs --launcher slurm or --launcher local")
        if self.print_commands and len(self.options) > 1:
            raise UsageError(f"--print-commands: carries nothing out; leave {self.options[0]} out")


def print_commands(folder: "GridFolder") -> None:
    """Print the command of every run that is not done; given again it goes on, so that any scheduler may repeat it."""
    from metasynth.running.grid_command import words_of

    for run in folder.grid.runs:
        if not folder.done(run):
            tell(shlex.join(words_of(folder, run, resume=True)), sys.stdout)
    tell(f"The report on those that have finished: metasynth report {shlex.quote(str(folder.path))}")
