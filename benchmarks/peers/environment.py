"""The environment of the peers: over that of the project, which stays as it is and whose torch is used.

    python -m benchmarks.peers.environment FOLDER

A package that cannot be installed is told, and kept in FOLDER/refused.json for the table.
"""

import argparse
import json
import site
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
REFUSED = "refused.json"
MAML = ("algorithms/base_learner.py", "algorithms/maml.py", "utils/__init__.py")
"""The files of learn2learn that its MAML is made of, which import nothing but torch."""


def requirements(text: str) -> list[list[str]]:
    """The packages of each line."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [line for line in lines if line]


def refusals() -> dict[str, str]:
    """Why packages were not installed in the environment that this runs in, by their names."""
    path = Path(sys.prefix) / REFUSED
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def reason_of(output: str) -> str:
    """The line of pip's output that says most: of a compiler, or else the last error."""
    lines = [line.strip() for line in output.splitlines() if "error:" in line.lower()]
    return next((line for line in lines if "fatal error:" in line), lines[-1] if lines else "pip said nothing")


def make(folder: Path) -> dict[str, str]:
    """Make the environment; gives what was refused, and why."""
    venv.create(folder, with_pip=True, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    paths = (path for path in site.getsitepackages() if Path(path).is_dir())
    (packages / "project.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
    refused = {}
    for names in requirements(REQUIREMENTS.read_text(encoding="utf-8")):
        done = _pip(folder, "install", "--no-deps", "-c", str(ROOT / "constraints.txt"), *names)
        if done.returncode != 0:
            name = names[0].partition("==")[0]
            refused[name] = reason_of(done.stdout)
            print(f"{name} cannot be installed: {refused[name]}", flush=True)
            if name == "learn2learn":
                _copy_maml(folder, packages, names[0])
    (folder / REFUSED).write_text(json.dumps(refused, indent=2) + "\n", encoding="utf-8")
    return refused


def _pip(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _copy_maml(folder: Path, packages: Path, requirement: str) -> None:
    """MAML alone, from the source distribution: what does not compile are its data sets."""
    with tempfile.TemporaryDirectory() as place:
        _pip(folder, "download", "--no-deps", "-d", place, requirement)
        for archive in Path(place).glob("*.tar.gz"):
            for name, text in _sources(archive):
                path = packages / "learn2learn" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
            for inside in ("", "algorithms"):
                (packages / "learn2learn" / inside / "__init__.py").touch()


def _sources(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            _, _, name = member.name.partition("/learn2learn/")
            if name in MAML and (file := opened.extractfile(member)) is not None:
                yield name, file.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
