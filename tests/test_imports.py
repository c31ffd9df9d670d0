"""Imports flow downwards only; what may import what is said in ALLOWED and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOMES = {"metasynth": "metasynth", "experiments": "metasynth.experiments", "data_prep": "metasynth.data_prep"}

# Layer -> layers it may import, besides itself, metasynth and what is in COMMON.
CORE = {"bilevel", "synthesis", "augment", "segment", "data", "running"}
PACKAGE = CORE | {"training", "report", "data_prep"}
SHARED = {"experiments.recovery", "experiments.real_images", "experiments.comparison"}
STUDY = "experiments.*"
ALLOWED: dict[str, set[str]] = {
    **{layer: set() for layer in CORE},
    "training": CORE,
    "report": {"running"},
    "data_prep": {"data", "synthesis"},
    "predict": {"segment", "data_prep"},
    "sinks": set(),
    "experiments": set(),
    "experiments.recovery": PACKAGE,
    "experiments.real_images": PACKAGE,
    "experiments.comparison": PACKAGE | {"experiments.real_images"},
    STUDY: PACKAGE | SHARED,
    "run": {"running", "training", "report", "sinks"},
    "export": CORE | {"training", "data_prep", "predict"},
    "cli": PACKAGE | {"predict", "run", "sinks", "export"},
    "__main__": {"cli"},
    "errors": set(),
    "files": {"errors"},
    "outputs": {"errors"},
    "plugins": {"errors"},
    "schema": {"errors"},
    "sealed": {"files"},
    "sizes": {"errors"},
    "text": {"errors"},
    "tensor_files": {"errors", "files", "sealed"},
    "interrupts": set(),
    "lines": set(),
    "pictures": set(),
    "children": set(),
    "worker_process": {"children", "interrupts"},
    "workers": {"worker_process", "interrupts"},
    "": set(),
}
COMMON = {
    *("", "children", "errors", "files", "interrupts", "lines", "outputs", "pictures", "plugins", "schema", "sealed"),
    *("sizes", "tensor_files", "text", "workers"),
}
HIGHER_IMPORTERS = {"metasynth.bilevel.patched.functional", "metasynth.bilevel.update.optimizers"}
IMAGE_PACKAGES = {"cornucopia", "nibabel", "nilearn", "h5py", "scipy", "matplotlib", "PIL", "skimage"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder, package in HOMES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """What a module imports, at its top or inside functions; '.' stands for a relative import."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." if node.level else node.module or ""
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return found


def layer(name: str) -> str:
    """'bilevel' of 'metasynth.bilevel.solver', 'experiments.noise' of a study; empty for 'metasynth' itself."""
    parts = name.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["experiments"] else 1])


def allowed(name: str, target: str) -> bool:
    root = target.partition(".")[0]
    mine, its = layer(name), layer(target)
    if root == "metasynth":
        rule = mine if mine in ALLOWED else STUDY
        return its == mine or its in COMMON | ALLOWED[rule]
    if root == "higher":
        return name in HIGHER_IMPORTERS
    if mine == "bilevel" and root in IMAGE_PACKAGES:
        return False
    return root not in ("", "experiments", "data_prep")


def violations(name: str, imports: set[str]) -> list[str]:
    return [f"{name} imports {target}" for target in sorted(imports) if not allowed(name, target)]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    trees = dict(modules())
    return {name: imported(tree, set(trees)) for name, tree in trees.items()}


def test_the_graph_is_not_empty(graph):
    assert "metasynth.running.records" in graph["metasynth.report.tables"]
    assert {layer(name) for name in graph} >= CORE | {"training", "report", "data_prep", "experiments", "cli"}


def test_imports_flow_downwards(graph):
    assert [line for name, imports in graph.items() for line in violations(name, imports)] == []


def test_there_is_no_import_cycle(graph):
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in graph[name] & graph.keys():
                if target != name:
                    visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("metasynth.bilevel.solver", "from metasynth.segment.unet import UNet"),
        ("metasynth.bilevel.solver", "import higher"),
        ("metasynth.bilevel.update.optimizers", "import h5py"),
        ("metasynth.augment.noise", "def f():\n    import metasynth.synthesis.generator"),
        ("metasynth.augment.noise", "from ..synthesis import generator"),
        ("metasynth.running.records", "from metasynth.segment.model_file import FOLDER"),
        ("metasynth.training.loop", "from metasynth.report.html import write_report"),
        ("metasynth.training.loop", "from metasynth.run import execute"),
        ("metasynth.training.loop", "from metasynth.data_prep import cohort"),
        ("metasynth.report.html", "from metasynth.training import stages"),
        ("metasynth.report.html", "from metasynth.experiments.recovery.rows import Row"),
        ("metasynth.data_prep.cohorts.cohort", "from metasynth.running.progress import Progress"),
        ("metasynth.experiments.noise", "from metasynth.experiments import inu"),
        ("metasynth.experiments.noise", "from metasynth.experiments.unpaired.settings import TITLES"),
        ("metasynth.experiments.noise", "import experiments.inu"),
        ("metasynth.experiments.recovery.tables", "from metasynth.experiments.comparison import methods"),
        ("metasynth.experiments.real_images.cohorts", "from metasynth.experiments.comparison import settings"),
        ("metasynth.experiments.comparison.study", "from metasynth.experiments.noise import EXPERIMENT"),
        ("metasynth.predict.scan", "from metasynth.export.described import described"),
        ("metasynth.errors", "from metasynth.data import cache"),
    ],
)
def test_a_wrong_import_is_found(name, source, graph):
    assert violations(name, imported(ast.parse(source), set(graph))) != []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("metasynth.bilevel.update.optimizers", "import higher.optim"),
        (
            "metasynth.bilevel.solver",
            "from metasynth.errors import RunError\nfrom metasynth.bilevel import problem",
        ),
        ("metasynth.run", "from metasynth.report.html import write_report"),
        ("metasynth.report.html", "from metasynth.running.records import RunFolder"),
        ("metasynth.experiments.noise", "from metasynth.data_prep.cohorts.cohort import COHORTS"),
        ("metasynth.experiments.noise", "from metasynth.experiments.recovery.rows import Row"),
        ("metasynth.experiments.unpaired.study", "from metasynth.experiments.unpaired.settings import TITLES"),
    ],
)
def test_a_right_import_is_not(name, source, graph):
    assert violations(name, imported(ast.parse(source), set(graph))) == []
