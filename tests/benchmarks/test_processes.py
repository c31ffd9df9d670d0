"""The model of what a step over several processes costs, and what is counted for it."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from metasynth.bilevel import Processes
from metasynth.training.segmenter_settings import SegmenterSettings

FOLDER = Path(__file__).parents[2] / "benchmarks" / "processes"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"benchmarked_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


cost, group = loaded("cost"), loaded("group")
SLOW = cost.Network(latency=1e-3, bandwidth=1e6)


def test_an_average_takes_the_hops_of_a_ring():
    assert SLOW.seconds(8000, 1) == 0
    assert SLOW.seconds(8000, 2) == pytest.approx(2 * (1e-3 + 4e-3), rel=1e-12)
    assert SLOW.seconds(8000, 4) == pytest.approx(6 * (1e-3 + 2e-3), rel=1e-12)
    assert SLOW.of_all([8000, 0, 8000], 2) == pytest.approx(0.022, rel=1e-12)


def test_short_averages_take_a_tree_where_there_are_some():
    trees = cost.Network(latency=1e-3, bandwidth=1e6, trees=True)
    assert [trees.seconds(8, n) for n in (1, 2, 6, 64)] == pytest.approx([0, 2 * 1.004e-3, 6.048e-3, 12.096e-3])
    assert trees.seconds(2_000_000, 64) == SLOW.seconds(2_000_000, 64) == pytest.approx(126 * 0.03225, rel=1e-12)


def test_a_network_is_fitted_to_its_averages():
    measured = [(size, count, SLOW.seconds(size, count)) for size in (16, 4000, 2_000_000) for count in (2, 4)]
    found = cost.fitted(measured)
    assert (found.latency, found.bandwidth) == pytest.approx((1e-3, 1e6), rel=1e-9)
    assert cost.fitted([(16, 2, 0.01), (4000, 2, 0.01)]) == cost.Network(pytest.approx(0.005), float("inf"))


def test_what_several_processes_gain():
    own = cost.grown(0.1, [8000, 8000], SLOW, 2)
    assert (own.processes, own.seconds, own.waiting, own.gain) == pytest.approx((2, 0.12, 1 / 6, 5 / 3), rel=1e-12)
    divided = cost.shared(0.1, [8000, 8000], SLOW, 2)
    wanted = (2, 0.07, 2 / 7, 10 / 7)
    assert (divided.processes, divided.seconds, divided.waiting, divided.gain) == pytest.approx(wanted, rel=1e-12)
    assert cost.grown(0.1, [8000], SLOW, 1).gain == cost.shared(0.1, [8000], SLOW, 1).gain == 1


def test_processes_share_cores():
    assert [cost.crowded(n, 2) for n in (1, 2, 3, 4)] == [1, 1, 1.5, 2]


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield Processes.current()
    dist.destroy_process_group()


PROBLEM = group.Problem(size=16, images=2, widths=(16, 32), horizon=3)
WEIGHTS = 4 * sum(
    weight.numel() for weight in SegmenterSettings(widths=(16, 32)).build(5, 2, None, (16, 16), (1.0, 1.0)).parameters()
)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("plain", [0]),
        ("Mixed", [0, 20]),
        ("FiniteDifference", [0, 20]),
        ("Unrolled(3)", [0, 0, 0, 28, 4, 0, 4, 4, 0, 0]),
    ],
)
def test_what_steps_exchange_is_counted(joined, monkeypatch, kind, extra):
    """As large as the weights: g, and v with losses; h is as small as the augmenter. Unrolled: v, and 3 each step."""
    step = PROBLEM.step(kind, 2, joined)
    step()
    monkeypatch.setattr(Processes, "count", property(lambda self: 2))
    with group.exchanges() as sizes:
        step()
    assert [size - WEIGHTS for size in sizes if size > 4096] == extra
