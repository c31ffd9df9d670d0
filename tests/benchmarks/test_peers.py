"""The benchmark of peers: its problems, its truth, its table, and what it says of a library that is not there."""

import math
import textwrap
from pathlib import Path

import pytest
import torch

from benchmarks.peers import environment, problems
from benchmarks.peers.__main__ import compare, main
from benchmarks.peers.libraries import LIBRARIES, OURS, Library, by_metasynth
from benchmarks.peers.lines import code_lines, user_lines
from benchmarks.peers.measure import BEFORE, Measured, differences_of
from benchmarks.peers.problem import differences, directions, values_of
from benchmarks.peers.table import Row, markdown

ROOT = Path(__file__).parents[2]
HERE = [library for library in LIBRARIES if library.name in ("metasynth", "higher")]  # what the project itself needs


@pytest.mark.parametrize("name", problems.NAMES)
def test_the_hypergradient_is_that_of_central_differences(name):
    truth = differences_of(name, tiny=True)
    assert {library.name: Measured(library, name, tiny=True).error(truth) < 1e-6 for library in HERE} == {
        "metasynth": True,
        "higher": True,
    }


def test_a_wrong_hypergradient_has_the_error_that_it_has():
    truth = differences_of("cleaning", tiny=True)
    assert Measured(OURS, "cleaning", tiny=True).error([2 * t for t in truth]) == pytest.approx(0.5, abs=1e-6)


def test_the_truth_of_the_ridge_is_the_closed_form():
    problem = problems.load("ridge").make(True, torch.float64)
    (x, y), (x_held, y_held) = next(problem.train), next(problem.held_out)
    decay = values_of(problem.outer).exp()
    matrix = x.T @ x / len(x) + decay.diag()
    weights = torch.linalg.solve(matrix, x.T @ y / len(x))
    slope = 2 * x_held.T @ (x_held @ weights - y_held) / len(x_held)
    expected = (-decay[:, None] * weights * torch.linalg.solve(matrix, slope))[:, 0]
    torch.testing.assert_close(differences(problem, BEFORE, directions(problem.outer)), expected, rtol=1e-8, atol=1e-11)


def test_directions_are_coordinates_or_a_few_unit_vectors():
    assert torch.equal(directions(torch.nn.Linear(3, 1)), torch.eye(4))
    many = directions(torch.nn.Linear(30, 1))
    assert many.shape == (24, 31)
    torch.testing.assert_close(many.norm(dim=1), torch.ones(24))


def test_a_problem_is_the_same_each_time_it_is_made():
    for name in problems.NAMES:
        first, again = (problems.load(name).make(True, torch.float32) for _ in range(2))
        for one, other in zip(next(first.train), next(again.train), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_lines_of_code_are_without_blank_ones_comments_and_docstrings():
    source = '''
        def step(x):
            """Told.

            At length.
            """
            # why

            y = (
                x  # inside
            )
            return """two
        lines""", y
    '''
    assert code_lines(textwrap.dedent(source)) == 6


def test_lines_of_what_a_function_names_in_its_module_count_once():
    assert user_lines(by_metasynth.one_step) == 4
    assert user_lines(by_metasynth.several_steps) == 4
    assert user_lines(by_metasynth.from_a_start) == 4 + 6


def test_the_table_has_the_best_in_bold_and_reasons_below():
    rows = [
        Row("ridge", "ours", 1.23e-9, 0.002, 4.0, 0.04, 1000, 4),
        Row("ridge", "faster", math.nan, 0.001, 4.0, 80.0, 1000, 12),
        Row("ridge", "absent", reason="ModuleNotFoundError: No module named 'absent'"),
        Row("noise", "ours", 2e-7, 0.5, 9.0, 0.0, 20, 5),
    ]
    assert markdown(rows, "ours").splitlines() == [
        "| problem | library | error of h | ms a step | times ours | peak MiB | MiB more after | lines |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| ridge | ours | 1.2e-09 | 2.00 | 1.00 | **4.0** | 0.0 (1,000) | **4** |",
        "| ridge | faster | not a number | **1.00** | 0.50 | **4.0** | 80.0 (1,000) | 12 |",
        "| ridge | absent | – | – | – | – | – | – |",
        "| noise | ours | 2.0e-07 | **500.00** | 1.00 | **9.0** | 0.0 (20) | **5** |",
        "",
        "- absent, ridge: ModuleNotFoundError: No module named 'absent'",
    ]


def test_a_library_that_is_not_there_cannot_or_crashes_has_its_row_and_the_reason(tmp_path, monkeypatch):
    (tmp_path / "unable.py").write_text("SOLVERS, UNABLE = {}, {'ridge': 'it has no second derivatives'}\n")
    (tmp_path / "dying.py").write_text("import os\nos._exit(7)\n")
    (tmp_path / "failing.py").write_text(
        "UNABLE = {}\ndef solve(given):\n    def step():\n        raise ValueError('no such thing')\n"
        "    return step\nSOLVERS = {'ridge': solve}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = ("absent", "unable", "dying", "failing")
    rows = compare("ridge", [Library(name, name, name) for name in names], repeats=1, steps=1, tiny=True)
    assert {row.library: row.reason for row in rows} == {
        "absent": "ModuleNotFoundError: No module named 'absent'",
        "unable": "it has no second derivatives",
        "dying": "its process ended with status 7",
        "failing": "ValueError: no such thing",
    }
    assert [(row.lines, row.seconds, row.error) for row in rows] == [*[(None, None, None)] * 3, (4, None, None)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--problems", "ridge,rigde"], "--problems: expected some of ridge,cleaning,sinusoid,digits,noise, got rigde"),
        (["--repeats", "0"], "--repeats: expected at least 1, got 0"),
        (["--steps", "-1"], "--steps: expected at least 1, got -1"),
    ],
)
def test_an_option_that_is_wrong_is_told_before_anything_is_begun(arguments, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m benchmarks.peers: error: {line}"


def test_outer_parameters_that_are_not_finite_are_told(monkeypatch):
    def solve(given):
        return lambda: given.outer.logs.data.fill_(math.inf)

    monkeypatch.setitem(by_metasynth.SOLVERS, "ridge", solve)
    measured = Measured(OURS, "ridge", tiny=True)
    measured.peak()
    with pytest.raises(ArithmeticError, match=r"^the outer parameters are not finite after 2 steps$"):
        measured.growth(2)


@pytest.mark.slow
def test_a_library_has_all_of_its_row():
    (row,) = compare("cleaning", [OURS], repeats=1, steps=3, tiny=True)
    assert row.reason is None
    assert row.error < 1e-6
    assert row.lines == 4
    assert 0 < row.seconds < 10
    assert row.peak_mib >= 0
    assert abs(row.growth_mib) < 50
    assert row.steps == 3


def test_requirements_are_pinned_as_those_of_the_project():
    text = environment.REQUIREMENTS.read_text(encoding="utf-8")
    asked = dict(word.split("==") for line in environment.requirements(text) for word in line)
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
    )
    assert {library.distribution for library in LIBRARIES} - set(asked) == {"metasynth-toolkit"}
    assert {name: version for name, version in asked.items() if pinned.get(name, version) != version} == {}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("gcc\n  a.c:210:12: fatal error: b.h: none\nerror: command failed\n", "a.c:210:12: fatal error: b.h: none"),
        ("Looking\nERROR: No matching distribution found for x\n", "ERROR: No matching distribution found for x"),
        ("", "pip said nothing"),
    ],
)
def test_the_reason_that_pip_gives(output, reason):
    assert environment.reason_of(output) == reason
