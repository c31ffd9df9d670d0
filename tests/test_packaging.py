"""The wheel and the editable install hold the package, with experiments and data_prep inside it."""

import configparser
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from metasynth.errors import DISTRIBUTION, install_hint

ROOT = Path(__file__).resolve().parent.parent
HOMES = {"metasynth": "metasynth", "experiments": "metasynth/experiments", "data_prep": "metasynth/data_prep"}


def run(*arguments, cwd):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
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
    """A copy of what the package is built from: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "metasynth"
    copy.mkdir()
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in HOMES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source):
    run(
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "-w",
        "wheels",
        ".",
        cwd=source,
    )
    (wheel,) = (source / "wheels").glob("metasynth_toolkit-*.whl")
    return wheel


def test_the_wheel_holds_every_module_and_no_other_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        f"{inside}/{path.relative_to(ROOT / home).as_posix()}"
        for home, inside in HOMES.items()
        for path in (ROOT / home).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert "metasynth/report/report.html.j2" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"metasynth", "metasynth_toolkit"}


HINT = re.compile(r"pip install '([\w-]+)\[(\w+)\]'")


def test_every_hint_names_this_distribution_and_an_extra_of_it():
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg", encoding="utf-8")
    assert declared["metadata"]["name"] == DISTRIBUTION
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.py")]
    hints = {hint for page in pages for hint in HINT.findall(page.read_text(encoding="utf-8"))}
    hints |= {hint for extra in ("align", "nnunet", "monai") for hint in HINT.findall(install_hint(extra))}
    assert {extra for _, extra in hints} == {"align", "nnunet", "monai", "peers"}
    assert {name for name, _ in hints} == {DISTRIBUTION}
    assert {extra for _, extra in hints} <= set(declared["options.extras_require"])


@pytest.mark.parametrize("extra", ["align", "nnunet", "monai", "test"])
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
