"""Every program in examples/ is short, imports faces only, runs, and finds what an independent computation gives."""

import ast
import copy
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FACES = {f"metasynth.{face}" for face in ("augment", "bilevel", "data", "segment", "synthesis")}
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_seven_and_the_page_on_them_names_each():
    assert len(PROGRAMS) == 7
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in PROGRAMS if f"[{path.name}]({path.name})" not in page] == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_is_short_says_how_it_is_run_and_imports_faces_only(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 100
    assert f"    python examples/{path.name} [--" in ast.get_docstring(tree)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in named if name.split(".")[0] == "metasynth"}
    assert ours
    assert ours <= FACES


def test_it_runs_as_a_user_runs_it():
    """One of them; the others are called below."""
    command = [sys.executable, "-W", "error", EXAMPLES / "implicit_ridge.py", "--outer-steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    assert first == "lambda 0.0183: hypergradient -0.16035454, closed form -0.16035454, loss 5.5919"
    assert last.startswith("lambda: learned 0.0")


def test_the_learned_rate_is_the_one_that_a_search_finds(capsys):
    learned, searched = load("learning_rate").main(["--outer-steps", "40"])
    assert learned == pytest.approx(searched, rel=2e-3)
    assert capsys.readouterr().out.splitlines()[-1] == "learned rate 0.1420, by search 0.1420"


def test_wrong_labels_lose_their_weight():
    found, learned, plain = load("noisy_labels").main(["--steps", "200"])
    assert found > 0.85  # by chance 0.5
    assert learned > plain + 0.02


def test_maml_has_the_gradient_that_is_written_by_hand_and_adapts():
    maml = load("maml")
    torch.manual_seed(0)
    start = maml.random_start().double()
    support, query = ([part.double() for part in points] for points in maml.draw(maml.TASKS))

    def errors(weights, points):
        w1, b1, w2, b2, w3, b3 = weights
        hidden = torch.relu(torch.relu(points[0] @ w1 + b1) @ w2 + b2)
        return (hidden @ w3 + b3 - points[1]).square().mean(dim=(1, 2))

    weights = [p.expand(maml.TASKS, *p.shape) for p in start]
    for _ in range(maml.STEPS):
        gradients = torch.autograd.grad(errors(weights, support).sum(), weights, create_graph=True)
        weights = [w - maml.RATE * g for w, g in zip(weights, gradients, strict=True)]
    expected = torch.autograd.grad(errors(weights, query).mean(), list(start))

    moved = copy.deepcopy(start)
    maml.make_solver(moved, maml.TASKS, torch.optim.SGD(moved.parameters(), lr=1.0)).step([support] * maml.STEPS, query)
    for before, after, gradient in zip(start, moved, expected, strict=True):
        torch.testing.assert_close((before - after).detach(), gradient, rtol=0, atol=1e-12)

    random, learned = maml.main(["--outer-steps", "200"])
    assert random[-1] > 4
    assert learned[-1] < 2
    assert learned[-1] < 0.6 * learned[0]


def test_implicit_differentiation_meets_the_closed_form():
    learned, best, worst = load("implicit_ridge").main([])
    assert worst < 1e-5  # of hypergradients up to 0.28
    assert learned == pytest.approx(best, abs=1e-5)


def test_the_tilt_and_the_noise_of_the_photographs_are_learned():
    augmentation = load("augmentation")
    tilt, noise, learned, plain = augmentation.main([])
    assert tilt == pytest.approx(augmentation.TILT, abs=3)  # it starts at 0
    assert noise == pytest.approx(augmentation.NOISE, abs=0.08)  # it starts at 0.05
    assert learned > plain + 0.15


@pytest.mark.slow
def test_the_resolution_that_is_drawn_is_learned_from_either_side(capsys):
    above, below = (load("resolution").main(["--start", start]) for start in ("10", "1.5"))
    assert capsys.readouterr().out.splitlines()[-1] == f"learned resolution {below:.2f}, true resolution 4.00"
    assert above == pytest.approx(4, rel=0.2)
    assert below == pytest.approx(4, rel=0.2)
    assert above == pytest.approx(below, rel=0.15)


def test_a_resolution_moves_by_values_and_repeats():
    """Two short windows: no derivative reaches it, and it moves all the same, in the same way each time."""
    resolution = load("resolution")
    resolution.HORIZON, resolution.REAL = 2, 2
    first, again = (resolution.main(["--outer-steps", "2"]) for _ in range(2))
    assert first == again
    assert abs(first - 1.5) > 1e-3


def test_the_page_for_those_who_come_from_others_shows_the_program_and_its_numbers(capsys):
    page = (EXAMPLES.parent / "docs" / "guides" / "coming-from.md").read_text(encoding="utf-8")
    assert '```python\n--8<-- "examples/coming_from.py"\n```\n' in page
    load("coming_from").main([])
    printed = re.findall(r"^[\w, ]+((?: [+-]0\.\d{6}){4})$", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(printed) >= 3
    assert [numbers for numbers in printed if f"|{numbers.replace(' ', ' | ').removeprefix(' |')} |" not in page] == []


def test_every_package_gives_the_closed_form(capsys):
    (train, held_out), found = load("coming_from").main([])
    (x, y), (x_held, y_held) = ([part.numpy() for part in rows] for rows in (train, held_out))
    decay = np.exp(-2.0)
    matrix = x.T @ x / len(x) + decay * np.eye(4)
    weights = np.linalg.solve(matrix, x.T @ y / len(x))
    slope = 2 * x_held.T @ (x_held @ weights - y_held) / len(x_held)
    expected = -decay * weights * np.linalg.solve(matrix, slope)
    installed = {name for name in ("torchopt", "betty") if importlib.util.find_spec(name) is not None}
    assert {name.lower() for name in found} == {"metasynth", "metasynth, implicit", "higher"} | installed
    for hypergradient in found.values():
        np.testing.assert_allclose(hypergradient.numpy(), expected[:, 0], rtol=1e-6)
    lines = capsys.readouterr().out.splitlines()
    assert ("Betty                left out: No module named 'betty'" in lines) == ("betty" not in installed)
