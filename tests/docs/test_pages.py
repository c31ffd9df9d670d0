"""Pages are where links say, hold what they promise, and name nothing that is gone."""

import configparser
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml
from docs.blocks import DOCS, NAMES, ROOT, blocks, prose

from metasynth.augment import table as augmenters
from metasynth.running import study
from metasynth.segment import table as networks
from metasynth.sinks import table as sinks

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
GUIDES = [name for name in NAMES if name.startswith("docs/guides/")]
MEASUREMENTS = [name for name in NAMES if name.startswith("docs/measurements/")]
MOST_WORDS = 800
ENTRY_POINTS = {study.GROUP, augmenters.GROUP, networks.GROUP, sinks.GROUP}
"""Groups of entry points, which are named like modules."""


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as both the site and a repository's pages make them."""
    heads = re.findall(r"^#+ (.+)$", prose(str(page.relative_to(ROOT))), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(LINK, "", head)).strip().lower() for head in heads)
    return {re.sub(r"[\s-]+", "-", head) for head in plain}


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(prose(name)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name}: {target}"
        assert file.is_relative_to(ROOT), f"{name}: {target}"
        assert not anchor or anchor in anchors(file), f"{name}: {target}"


def accidents(text: str) -> list[str]:
    """What two stars of formulas such as that of an updated φ would set in italics, outside of code."""
    parts = re.split(r"\n\s*\n|\n(?=\||- |\S+ : )", re.sub(r"``?[^`]+``?", "", text))
    return [found[0] for part in parts if (found := re.search(r"(?<=\w)\*(?![\s*])[^*]*?(?<![\s*(,])\*(?!\*)", part))]


def test_stars_of_formulas_are_found_outside_of_code() -> None:
    assert accidents("a φ*(θ) and\nb φ*, *so* called") == ["*(θ) and\nb φ*"]
    assert accidents("a φ* alone\n\n`v = D*(x) + D*(y)`, of *one* or (B, *S) to (B, K, *S)") == []


@pytest.mark.parametrize("name", NAMES)
def test_no_formula_of_a_page_becomes_italics(name: str) -> None:
    assert accidents(prose(name)) == []


@pytest.mark.parametrize("name", ["augment", "bilevel", "data", "segment", "sinks", "synthesis"])
def test_no_formula_of_the_reference_becomes_italics(name: str) -> None:
    face = importlib.import_module(f"metasynth.{name}")
    made = [getattr(face, each) for each in face.__all__]
    members = [member for each in made if inspect.isclass(each) for member in vars(each).values()]
    texts = [inspect.getdoc(each) or "" for each in (face, *made, *members)]
    assert [found for text in texts for found in accidents(text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_package_exist(name: str) -> None:
    for dotted in sorted(set(re.findall(r"`(metasynth(?:\.\w+)+)`", prose(name))) - ENTRY_POINTS):
        found, path = importlib.import_module("metasynth"), "metasynth"
        for part in dotted.split(".")[1:]:
            path = f"{path}.{part}"
            if not hasattr(found, part):
                importlib.import_module(path)
            found = getattr(found, part)


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_repository_exist(name: str) -> None:
    named = re.findall(r"`((?:metasynth|experiments|data_prep|benchmarks|tests|examples)/[\w./]+)`", prose(name))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_path_leads_out_of_the_repository(name: str) -> None:
    assert "shared/" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_is_short(name: str) -> None:
    assert len(prose(name).split()) <= MOST_WORDS


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measured_table_has_its_command(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        if re.search(r"^\| -", section, re.MULTILINE) and name != "docs/measurements/index.md":
            assert "```sh" in section or "No command" in section, f"{name}: {section.splitlines()[0]}"


def test_code_names_pages_that_exist() -> None:
    files = [
        file for part in ("metasynth", "experiments", "data_prep", "benchmarks") for file in (ROOT / part).rglob("*.py")
    ]
    named = {(path, file.name) for file in files for path in re.findall(r"docs/[\w/-]+\.md", file.read_text())}
    assert named
    assert {pair for pair in named if not (ROOT / pair[0]).is_file()} == set()


def test_every_picture_is_shown() -> None:
    shown = {target.rpartition("/")[2] for name in NAMES for target in LINK.findall(prose(name))}
    assert {picture.name for picture in (DOCS / "images").iterdir()} - shown == set()


def test_every_page_is_in_the_navigation() -> None:
    def leaves(tree: object) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return [leaf for branch in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(branch)]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_readme_is_short_and_its_program_imports_from_one_face() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    (program,) = [block for block in blocks("README.md") if block.language == "python"]
    assert len(re.findall(r"^(?:from|import) metasynth", program.text, re.MULTILINE)) == 1
    assert "from metasynth.bilevel import BilevelProblem" in program.text


def test_the_first_screen_of_the_readme_shows_the_commands_a_picture_and_a_table() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert "make run" in first
    assert "![" in first
    assert "| preset σ | learned σ |" in first


def test_what_builds_the_site_is_pinned() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extra = config["options.extras_require"]["docs"].strip().splitlines()
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {re.split(r"[\[>]", requirement)[0] for requirement in extra} <= pinned


def test_the_site_needs_no_network() -> None:
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]
    assert theme["font"] is False  # else fonts of another host
    assert "http" not in (DOCS / "site.css").read_text()
