"""What a run ran on: versions, commit, device, threads."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import metasynth

PACKAGES = ("torch", "numpy", "higher", "cornucopia")


def describe_environment(device: str, threads: int) -> dict[str, Any]:
    """Versions, git commit (None outside a checkout), device and platform as JSON values."""
    return {
        "metasynth": metasynth.__version__,
        "commit": git_commit(Path(metasynth.__file__).parent),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "device": device,
        "threads": threads,
        "platform": platform.platform(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def git_commit(folder: Path) -> str | None:
    """The commit of the repository that tracks ``folder``, with '+changes' if its files differ from it."""
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed below some other project's checkout, or no checkout at all
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit + "+changes" if commit and changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
