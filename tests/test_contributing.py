"""CONTRIBUTING.md names files, targets and commands that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"`([^`]+)`", TEXT)


def test_every_file_that_is_named_is_there():
    suffixes = (".py", ".cfg", ".txt", ".md", ".cff")
    named = {word for quoted in QUOTED for word in quoted.split() if "/" in word or word.endswith(suffixes)}
    made = {word for word in named if word.startswith((".venv/", "dist/"))}  # by make
    placeholders = {word for word in named if "NAME" in word}
    assert len(named) > 10
    assert [word for word in sorted(named - made - placeholders) if not (ROOT / word).exists()] == []
    assert [word for word in sorted(placeholders) if not (ROOT / word).parent.is_dir()] == []


@pytest.mark.parametrize("target", sorted({word.split()[1] for word in QUOTED if word.startswith("make ")}))
def test_every_target_is_one_of_the_makefile(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert f"make {target} " in makefile.partition("\nrun:")[0]  # and of its help


@pytest.mark.parametrize("row", [line for line in TEXT.splitlines() if re.match(r"\| an? \w+ \| \d", line)])
def test_as_many_files_are_counted_as_are_named(row):
    files = row.split(" | ")[1]
    assert int(files[0]) == len(files.split(", "))


@pytest.mark.parametrize("name", ["forward", "finite_difference", "unrolled", "implicit"])
def test_a_strategy_is_known_to_the_files_that_are_named_and_to_no_other(name):
    """All but the one that the solver takes where none is given, and the one that takes another in parts."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| a strategy |"))
    named = set(re.findall(r"`([^`]+)`", row.split(" | ")[1]))
    own = f"metasynth/bilevel/strategies/{name}.py"
    importing = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "metasynth").rglob("*.py")
        if f"bilevel.strategies.{name} import" in path.read_text(encoding="utf-8")
    }
    assert {own} | importing == {path.replace("NAME", name) for path in named}


def test_the_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(("what", "table"), [("an augmenter", "augment"), ("a backbone", "segment")])
def test_a_line_is_added_where_the_lines_are(what, table):
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| {what} |"))
    path = f"metasynth/{table}/built_in.py"
    assert f"| 2: `metasynth/{table}/NAME.py`, one line in `{path}` |" in row
    assert "\nENTRIES = (\n" in (ROOT / path).read_text(encoding="utf-8")
