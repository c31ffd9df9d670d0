"""The fenced blocks of the documentation, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(
    r"(?:^<!-- saved as: (?P<saved>\S+) -->\n+)?^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, the language that is named, its text, and the file that a reader saves it as."""

    page: str
    line: int
    language: str
    text: str
    saved: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def shown(self) -> str | None:
        """The file of the repository that stands here, by the markup of a snippet."""
        found = re.fullmatch(r'--8<-- "([^":]+)(?::[^"]*)?"', self.text.strip())
        return found and found[1]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; a line that ends in a backslash goes on, a # begins a comment."""
        lines = self.text.replace("\\\n", "").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text[: match.start("language")].count("\n") + 1, match["language"], match["text"], match["saved"])
        for match in _FENCE.finditer(text)
    ]


def prose(page: str) -> str:
    """The text of a page without its blocks."""
    return _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of the documentation with its place."""
    for page in NAMES:
        for block in blocks(page):
            if block.language == "sh":
                yield from ((block.place, words) for words in block.commands)
