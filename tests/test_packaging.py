"""The wheel and the editable install hold the package, with experiments and data_prep inside it."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from metasynth import __version__
from metasynth.errors import DISTRIBUTION, install_hint

ROOT = Path(__file__).resolve().parent.parent
HOMES = {"metasynth": "metasynth", "experiments": "metasynth/experiments", "data_prep": "metasynth/data_prep"}


def run(*arguments, cwd, python=sys.executable, **variables):
    command = [str(part) for part in (python, *arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **variables})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(wheel, target):
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel, cwd=target.parent)


def imported_from(target, cwd):
    """Where an interpreter that knows of ``target`` and no other install finds the parts of the package."""
    code = f"""
import site, sys
site.addsitedir({str(target)!r})
sys.path.append({sysconfig.get_paths()["purelib"]!r})
from importlib.metadata import entry_points
from importlib.resources import files
import metasynth, metasynth.cli.main, metasynth.experiments, metasynth.data_prep
assert files("metasynth.report").joinpath("report.html.j2").is_file()
(noise, *_) = entry_points(group="metasynth.experiments", name="noise")
for module in (metasynth, metasynth.cli.main, metasynth.experiments, metasynth.data_prep):
    print(module.__file__)
"""
    return [Path(line) for line in run("-S", "-c", code, cwd=cwd).splitlines()]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what a clone holds: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "metasynth"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", *(name.rstrip("/") for name in ignored)))
    return copy


@pytest.fixture(scope="module")
def sdist(source):
    """The source distribution, unpacked."""
    code = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    name = run("-c", code, source / "dist", cwd=source).splitlines()[-1]
    unpacked = source.parent / "sdist"
    with tarfile.open(source / "dist" / name) as archive:
        archive.extractall(unpacked, filter="data")
    return unpacked / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist):
    """The wheel, built as an installer builds it from the source distribution."""
    options = ["-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", "wheels"]
    run("-m", "pip", "wheel", *options, ".", cwd=sdist)
    (wheel,) = (sdist / "wheels").glob("metasynth_toolkit-*.whl")
    return wheel


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The Python of a new environment with the wheel in it, and the packages that these tests run with beside it."""
    home = tmp_path_factory.mktemp("fresh")
    run("-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    site = run("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=home, python=python).strip()
    (Path(site) / "beside.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    return python


def test_the_source_distribution_holds_what_a_clone_does(source, sdist):
    def files(folder):
        built = ("dist", "wheels", "build", "metasynth_toolkit.egg-info")
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {path.as_posix() for path in found if path.parts[0] not in built and path.suffix != ".pyc"}

    assert files(source) - files(sdist) == {".gitignore"}
    assert files(sdist) - files(source) == {"PKG-INFO"}
    assert {"LICENSE", "metasynth/py.typed", "metasynth/report/report.html.j2"} <= files(sdist)
    assert {"data_prep/__init__.py", "experiments/__init__.py", "examples/maml.py"} <= files(sdist)


def test_one_version_is_said_everywhere(sdist):
    assert (sdist / "PKG-INFO").read_text(encoding="utf-8").splitlines()[1:3] == [
        f"Name: {DISTRIBUTION}",
        f"Version: {__version__}",
    ]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, day = re.search(r"^## \[(\d.*)\] - (\d{4}-\d\d-\d\d)$", changes, flags=re.MULTILINE).groups()
    assert version == __version__
    assert f'\nversion: {version}\ndate-released: "{day}"\n' in citation


def test_the_wheel_holds_every_module_and_no_other_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        f"{inside}/{path.relative_to(ROOT / home).as_posix()}"
        for home, inside in HOMES.items()
        for path in (ROOT / home).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert {"metasynth/report/report.html.j2", "metasynth/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"metasynth", "metasynth_toolkit"}


HINT = re.compile(r"pip install '([\w-]+)\[(\w+)\]'")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.*")]
PAGES += (ROOT / "benchmarks").rglob("*.py")
SINKS = ("tensorboard", "mlflow", "wandb")
# By `require`, `metasynth prep --align`, `metasynth run --launcher` and `--log`.
PRINTED = {install_hint(extra) for extra in ("align", "cluster", "export", "nnunet", "monai", *SINKS)}
NOT_HERE = {"peers": "torchopt>=0.7.3", "mlflow": "mlflow>=3", "wandb": "wandb>=0.19"}
"""Extras that are no part of what these tests run with, so that their hints are not carried out."""
HINTS = {*PRINTED, *(found.group() for page in PAGES for found in HINT.finditer(page.read_text(encoding="utf-8")))}


def test_every_hint_names_this_distribution_and_an_extra_of_it():
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    assert declared["metadata"]["name"] == DISTRIBUTION
    found = [HINT.fullmatch(hint).groups() for hint in HINTS]
    assert {extra for _, extra in found} == {"align", "cluster", "export", "nnunet", "monai", "peers", *SINKS}
    assert {name for name, _ in found} == {DISTRIBUTION}
    assert {extra for _, extra in found} <= set(declared["options.extras_require"])


@pytest.mark.parametrize("hint", sorted(HINTS - set(map(install_hint, NOT_HERE))))
def test_every_hint_works_as_it_is_printed_in_a_fresh_environment(hint, fresh):
    """No index is asked: what is installed there gives the extra, and what that asks for lies beside it."""
    _, *arguments = shlex.split(hint)
    said = run("-m", "pip", *arguments, cwd=fresh.parent, python=fresh, PIP_NO_INDEX="1")
    (package, *_) = [line for line in said.splitlines() if "extra ==" in line or f"{DISTRIBUTION}[" in line]
    assert package.startswith(f"Requirement already satisfied: {shlex.split(hint)[-1]} in {fresh.parent.parent}")


@pytest.mark.parametrize("extra", NOT_HERE)
def test_what_is_not_installed_here_is_an_extra_of_the_wheel(wheel, extra):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    assert f'Requires-Dist: {NOT_HERE[extra]}; extra == "{extra}"\n' in metadata


def test_the_command_works_in_a_fresh_environment(fresh):
    """The wheel brings the command and the studies."""
    place = run("-c", "import metasynth; print(metasynth.__file__)", cwd=fresh.parent, python=fresh)
    assert Path(place.strip()).is_relative_to(fresh.parent.parent)
    command = fresh.parent / "metasynth"
    done = {name: subprocess.run([command, name], capture_output=True, text=True) for name in ("--help", "--version")}
    assert done["--help"].stdout.startswith("Usage: metasynth [OPTIONS] COMMAND [ARGS]...\n")
    assert done["--version"].stdout == f"metasynth, version {__version__}\n"
    listed = subprocess.run([command, "list"], capture_output=True, text=True, check=True).stdout
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    studies = declared["options.entry_points"]["metasynth.experiments"].split("\n")
    assert [line.split(":")[0] for line in listed.splitlines()] == [s.split(" = ")[0] for s in studies if s]


@pytest.mark.parametrize("extra", ["align", "export", "nnunet", "monai", "tensorboard", "test"])
def test_the_wheel_can_be_installed_with_an_extra(wheel, extra, tmp_path):
    """Beside what these tests run with, which holds all that the extras ask for."""
    run("-m", "pip", "install", "-q", "--dry-run", "--no-index", f"{wheel}[{extra}]", cwd=tmp_path)


def test_the_installed_wheel_imports(wheel, tmp_path):
    target = tmp_path / "site"
    install(wheel, target)
    assert not (target / "experiments").exists()
    assert not (target / "data_prep").exists()
    assert all(path.is_relative_to(target) for path in imported_from(target, tmp_path))


def test_the_editable_install_imports_from_the_source(source, tmp_path):
    code = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    run("-c", code, tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("metasynth_toolkit-*.whl")
    target = tmp_path / "site"
    install(wheel, target)
    found = imported_from(target, tmp_path)
    assert found[0] == source / "metasynth" / "__init__.py"
    assert found[2:] == [source / name / "__init__.py" for name in ("experiments", "data_prep")]
