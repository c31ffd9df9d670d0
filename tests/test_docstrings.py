"""Docstrings are numpydoc: sections by their names, and parameters as the function has them."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("metasynth", "experiments", "data_prep") for path in (ROOT / folder).rglob("*.py"))
OTHER_FORMS = r"(Args|Arguments|Attributes|Raises|Returns|Yields|Parameters|Notes|Examples):|:(param|returns?|raises) ?"
Documented = ast.FunctionDef | ast.ClassDef


def _documented(path: Path) -> Iterator[tuple[Documented, str]]:
    """Functions and classes with their docstrings, "" where there is none; not those of a private class."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, Documented):
                yield node, ast.get_docstring(node) or ""
            if not (isinstance(node, ast.ClassDef) and node.name.startswith("_")):
                waiting.append(node)


def _section(text: str, title: str) -> list[str]:
    """The lines at the margin of a section, that is the names in it with their types."""
    lines = text.splitlines()
    underlined = [i for i, line in enumerate(lines[1:]) if line and set(line) == {"-"}]
    for start, end in pairwise([*underlined, len(lines)]):
        if lines[start] == title:
            return [line for line in lines[start + 2 : end] if line and not line.startswith(" ")]
    return []


def _arguments(node: Documented) -> set[str]:
    if isinstance(node, ast.ClassDef):
        made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}  # type: ignore[union-attr]
        return fields.union(*map(_arguments, made))
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {argument.arg for argument in every if argument}


def _faults(path: Path) -> Iterator[str]:
    for node, text in _documented(path):
        place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        yield from (f"{place}: {line}" for line in text.splitlines() if re.fullmatch(OTHER_FORMS + ".*", line))
        for line in _section(text, "Parameters"):
            names = {name.strip(" *") for name in re.split(" ?: ?", line)[0].split(",")}
            yield from (f"{place}: has no parameter {name}" for name in sorted(names - _arguments(node)))


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in FILES}), ids=lambda folder: str(folder.relative_to(ROOT))
)
def test_sections_are_numpydoc_and_parameters_exist(folder: Path) -> None:
    assert [fault for path in FILES if path.parent == folder for fault in _faults(path)] == []


def _raised(node: ast.FunctionDef) -> set[str]:
    """Names of the errors that a function makes and raises; one made in a function inside it is that one's."""
    found, waiting = set(), list[ast.AST](node.body)
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
            found.add(ast.unparse(part.exc.func).split(".")[-1])
        waiting += ast.iter_child_nodes(part)
    return found


def _unsaid(path: Path) -> list[str]:
    """Public functions whose docstring neither has a section on what they raise nor names it."""
    return [
        f"{path.name}:{node.lineno} {node.name}: {', '.join(sorted(unnamed))}"
        for node, text in _documented(path)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not _section(text, "Raises")
        if (unnamed := {name for name in _raised(node) if name not in text})
    ]


@pytest.mark.parametrize("folder", ["data_prep", "metasynth/data", "metasynth/predict", "metasynth"])
def test_public_functions_say_what_they_raise(folder: str) -> None:
    assert [line for path in sorted((ROOT / folder).glob("*.py")) for line in _unsaid(path)] == []


def test_another_form_is_found(tmp_path: Path) -> None:
    file = ROOT / "metasynth" / "files.py"
    assert list(_faults(file)) == []
    assert re.fullmatch(OTHER_FORMS + ".*", "Args:")
    assert re.fullmatch(OTHER_FORMS + ".*", ":param path: the file")
    assert not re.fullmatch(OTHER_FORMS + ".*", "Raises")
    text = (
        "One line.\n\nParameters\n----------\na, *b : int\n    What.\nc\n    Other.\n\nRaises\n------\nError\n    When."
    )
    assert _section(text, "Parameters") == ["a, *b : int", "c"]
    assert _section(text, "Raises") == ["Error"]
