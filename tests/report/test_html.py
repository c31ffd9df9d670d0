import base64
import csv
import os
import re
from html.parser import HTMLParser

import pytest

from metasynth.errors import DataError, UsageError
from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure, write_report
from metasynth.report.tables import Table
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RESULTS, RunFolder

MANIFEST = make_manifest(
    "noise", "quick", 7, {"sigma": "<b>0.1</b>"}, {"path": "a.h5", "digest": "abc", "given": False}
)


class Page(HTMLParser):
    """Tags and addresses of a page; unbalanced tags fail."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path):
    with RunFolder.create(tmp_path / "run-7", MANIFEST, {"device": "cpu", "commit": None}) as folder:
        rows = [{"sigma_true": 0.1, "dice": {"clean": {"mean": 0.8}}}, {"sigma_true": 0.05, "note": "é"}]
        results = {
            "experiment": "noise",
            "preset": "quick",
            "seed": 7,
            "device": "cpu",
            "wall_s": 90.0,
            "rows": rows,
        }
        folder.write_json(RESULTS, {**results, "reference": {}})
        yield folder


@pytest.fixture
def content(folder):
    return make_content(folder)


def make_content(folder):
    rows = folder.results["rows"]
    return ReportContent(
        title="Is <script>alert(1)</script> noise learned?",
        summary=["First & second.", "Third."],
        tables=[
            Table.from_records("Table 1.", rows, {"sigma_true": "preset σ"}),
            Table.from_records("Table 2.", rows, {"note": "note"}),
        ],
        figures=[ReportFigure("sigma", 'σ "against" step.', trajectory([Series("a", [0, 1], [0.3, 0.1], 0.1)]))],
    )


def test_all_files_are_written(folder, content):
    page = write_report(folder, content)
    assert page == folder.path / "report.html"
    assert (folder.path / "table.md").read_text() == (
        "Table 1.\n\n| preset σ |\n| -------: |\n|    0.100 |\n|    0.050 |\n\n"
        "Table 2.\n\n| note |\n| ---- |\n| –    |\n| é    |\n"
    )
    with (folder.path / "table.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["sigma_true", "dice.clean.mean", "note"], ["0.1", "0.8", ""], ["0.05", "", "é"]]


def test_the_page_holds_everything_and_fetches_nothing(folder, content):
    text = write_report(folder, content).read_text(encoding="utf-8")
    page = Page(text)
    (image,) = page.addresses
    kind, data = image.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (folder.path / "figures" / "sigma.png").read_bytes()
    assert not re.search(r"https?:|url\(|@import", text.replace(image, ""))
    for shown in (
        "First &amp; second.",
        "Third.",
        "Table 1.",
        "0.050",
        "seed 7",
        "1.5 minutes",
        "abc",
        "run-7",
    ):
        assert shown in text


def test_text_is_escaped(folder, content):
    text = write_report(folder, content).read_text(encoding="utf-8")
    assert "script" not in Page(text).tags
    assert "&lt;b&gt;0.1&lt;/b&gt;" in text
    assert 'alt="σ &#34;against&#34; step."' in text


@pytest.mark.parametrize("name", ["x/../../../outside", "../outside", "/outside", "a//b", "a\\..\\b", "a\0b", "a\nb"])
def test_no_name_leads_out_of_the_folder(tmp_path, folder, name):
    before = sorted(path for path in tmp_path.rglob("*"))
    figure = ReportFigure(name, "A caption.", trajectory([Series("a", [0, 1], [0.3, 0.1], 0.1)]))
    content = ReportContent("t", [], [], [figure])
    with pytest.raises(DataError) as caught:
        write_report(folder, content)
    assert str(caught.value) == (
        f"{folder.path}: the name {f'figures/{name}.png'!r} must not lead out of the folder; expected plain names and "
        "'/'"
    )
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_no_link_leads_out_of_the_folder(tmp_path, folder, content):
    (tmp_path / "elsewhere").mkdir()
    (folder.path / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"the name 'figures/sigma\.png' must not lead out of the folder"):
        write_report(folder, content)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_html_in_a_caption_shows_as_it_is(folder):
    table = Table.from_records("Of <script>x</script>.", [{"a": 1}])
    write_report(folder, ReportContent("t", [], [table], []))
    assert (folder.path / "table.md").read_text().startswith("Of &lt;script&gt;x&lt;/script&gt;.\n")


def test_bytes_of_file_names_that_are_no_text(folder):
    page = write_report(folder, ReportContent(os.fsdecode(b"caf\xe9.h5"), [], [], []))
    assert "caf\\udce9.h5" in page.read_text(encoding="utf-8")


def test_a_report_without_tables_and_figures(folder):
    page = Page(write_report(folder, ReportContent("t", [], [], [])).read_text())
    assert "figure" not in page.tags


def test_writing_again_gives_the_same_bytes(folder):
    def written():
        write_report(folder, make_content(folder))
        return {path: path.read_bytes() for path in folder.path.rglob("*.*") if path.is_file()}

    assert written() == written()


def test_an_unfinished_run_has_no_report(tmp_path, content):
    with (
        RunFolder.create(tmp_path / "b", MANIFEST) as unfinished,
        pytest.raises(UsageError, match="has no results yet"),
    ):
        write_report(unfinished, content)
    assert not (tmp_path / "b" / "report.html").exists()
