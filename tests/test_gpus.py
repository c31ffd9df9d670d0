"""Tests of a GPU are asked for by name, say in one line why they are left out, and no other test sees one."""

import gc
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFTEST = str(Path(__file__).with_name("conftest.py"))
MARKED, UNMARKED = (
    SimpleNamespace(get_closest_marker=lambda name, marks=marks: name in marks or None) for marks in ({"cuda"}, set())
)


@pytest.fixture
def hooks(request):
    """The conftest of all tests."""
    (found,) = (p for p in request.config.pluginmanager.get_plugins() if getattr(p, "__file__", "") == CONFTEST)
    return found


@pytest.mark.parametrize("there", [True, False])
def test_where_there_is_no_gpu_its_tests_are_skipped_for_one_reason(hooks, monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    hooks.pytest_runtest_setup(UNMARKED)
    if there:
        hooks.pytest_runtest_setup(MARKED)
        return
    with pytest.raises(pytest.skip.Exception, match=r"^torch sees no CUDA device here$"):
        hooks.pytest_runtest_setup(MARKED)


@pytest.mark.parametrize(("items", "seen"), [([UNMARKED], ""), ([UNMARKED, MARKED], "3")])
def test_a_gpu_is_seen_where_a_test_asks_for_one(hooks, monkeypatch, items, seen):
    for name in ("collect", "freeze"):
        monkeypatch.setattr(gc, name, lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    hooks.pytest_collection_finish(SimpleNamespace(items=items))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_what_takes_a_device_is_of_the_cpu_unless_a_gpu_is_asked_for(device, request):
    marked = request.node.get_closest_marker("cuda") is not None
    assert (device == "cuda") == marked
    assert torch.zeros(1, device=device).device.type == device


@pytest.mark.parametrize("marker", ["slow", "cluster", "cuda"])
def test_markers_are_left_out_by_default(pytestconfig, marker):
    assert any(line.startswith(f"{marker}: ") for line in pytestconfig.getini("markers"))
    assert f"not {marker}" in " ".join(pytestconfig.getini("addopts"))


def test_make_gpu_runs_the_tests_and_then_the_benchmark():
    def commands(target):
        words = ["make", "-n", "--no-print-directory", "-o", ".venv/installed", target]
        return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert commands("gpu").splitlines() == [
        ".venv/bin/pytest -m cuda",
        ".venv/bin/python benchmarks/gpu.py --minutes 9 --json gpu.json",
    ]
    every = set(re.findall(r"benchmarks/\w+\.py", commands("bench")))
    assert every == {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")} - {"benchmarks/gpu.py"}
