"""The faces of the package: every name under one import, light where it can be, and used by the docs and examples."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).parents[1]
FACES = ("augment", "bilevel", "data", "segment", "sinks", "synthesis")
# What users follow; benchmarks look inside.
PROGRAMS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
HEAVY = {"torch", "cornucopia", "matplotlib", "monai", "nibabel", "scipy", "click", "h5py"}


@pytest.mark.parametrize("name", FACES)
def test_every_name_is_there_once_and_documented(name):
    face = importlib.import_module(f"metasynth.{name}")
    assert len(face.__all__) == len(set(face.__all__))
    made = [getattr(face, each) for each in face.__all__]
    assert [each.__name__ for each in made if isinstance(each, type | FunctionType) and not each.__doc__] == []


@pytest.mark.parametrize("name", ["data", "synthesis"])
def test_a_name_that_a_face_has_not_is_told_as_by_any_module(name):
    face = importlib.import_module(f"metasynth.{name}")
    with pytest.raises(AttributeError, match=f"module 'metasynth.{name}' has no attribute 'Nothing'"):
        _ = face.Nothing


@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("data", {"h5py"}),
        ("augment", {"torch"}),
        ("segment", {"torch", "scipy"}),
        ("synthesis", {"torch", "scipy"}),
        ("bilevel", {"torch"}),
        ("sinks", set()),
    ],
)
def test_what_a_face_imports_is_bounded(name, heavy):
    code = f"import sys, metasynth.{name}\nprint(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= heavy


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_for_users_import_from_faces(path):
    inside = rf"^\s*(?:from|import) metasynth\.(?:{'|'.join(FACES)})\."
    assert re.findall(inside, path.read_text(encoding="utf-8"), re.MULTILINE) == []
