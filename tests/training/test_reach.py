"""Learning rates that no training can use, and steps after which no gradient leads back."""

import math
import re

import pytest
import torch
from click.testing import CliRunner
from metasynth.experiments import hyper_cleaning, ridge
from support.tiny_noise import arguments, make_cache
from torch import nn

from metasynth.augment.bias_field import BiasField
from metasynth.augment.bijections import Exp, Sigmoid, Softplus
from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.compose import Compose
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.varying_noise import NoiseRange
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_report import NonFiniteError
from metasynth.cli.main import main
from metasynth.errors import RunError
from metasynth.run import execute
from metasynth.training import settings
from metasynth.training.reach import constrained_in, require_rate, within_reach


@pytest.mark.parametrize(
    ("rate", "line"),
    [
        (0.0, "lr must be positive, got 0.0"),
        (math.nan, "lr must be positive, got nan"),
        (5.5, "lr must be at most 5, got 5.5"),
        (math.inf, "lr must be at most 5, got inf"),
    ],
)
def test_rates(rate, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        require_rate(5.0, lr=rate)
    require_rate(5.0, lr=5.0)
    require_rate(lr=1000.0)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("bijection", "flat", "steep"),
    [
        (Softplus(), [-1e30, -200.0, -40.0], [-10.0, 0.0, 100.0, 1e30]),
        (Sigmoid(), [-1e30, -40.0, 40.0, 1e30], [-10.0, 0.0, 10.0]),
        (Sigmoid(-2.0, 3.0), [-40.0, 40.0], [-10.0, 10.0]),
        (Exp(), [-1e30, -40.0], [-10.0, 0.0, 80.0]),
    ],
)
def test_where_bijections_are_flat(kind, bijection, flat, steep):
    assert bijection.is_flat(torch.tensor(flat, dtype=kind)).all()
    assert not bijection.is_flat(torch.tensor(steep, dtype=kind)).any()
    parameter = nn.Parameter(torch.tensor(0.0, dtype=kind))
    with torch.no_grad():
        assert bijection.is_flat(parameter).shape == ()
    assert parameter.grad is None


def test_every_constrained_parameter_is_known():
    found = constrained_in(Compose(BiasField((0.2, 0.8), nodes=(2, 3)), GaussianNoise(0.1), NoiseRange(0.1, 0.2)))
    assert list(found) == ["parts.0.exponents", "parts.1.sigma", "parts.2.low", "parts.2.width"]
    assert [raw.shape for _, raw in found.values()] == [(2,), (), (), ()]
    assert set(constrained_in(ClassIntensities(3))) == {"spreads", "textures", "blur"}
    assert constrained_in(nn.Linear(2, 2)) == {}


@pytest.mark.parametrize(
    ("move", "line"),
    [
        (-0.2, None),
        (-1e4, "an outer step took sigma from 0.1 to 0, an end of its range"),
        (-18.0, "an outer step took sigma from 0.1 to 1.6e-09, an end of its range"),
        (1e4, None),  # a standard deviation has no upper end
    ],
)
def test_a_step_too_far(move, line):
    noise = GaussianNoise(0.1)

    def step():
        with within_reach(constrained_in(noise), "outer.lr"):
            noise.raw_sigma.data += move

    if line is None:
        step()
        return
    with pytest.raises(ValueError, match=f"^{line}, from where no gradient leads back; expected .*: lower outer.lr$"):
        step()


def test_one_of_several_values():
    raw = torch.zeros(3)
    step = within_reach({"c": (Sigmoid(), raw)}, "lr")
    with pytest.raises(ValueError, match=r"^an outer step took c from 0\.5 to 1, an end of its range"), step:
        raw[1] += 30


def test_small_steps_may_reach_an_end():
    """Where the losses ask for it, as of a noise that is not there."""
    noise = GaussianNoise(0.1)
    for _ in range(600):
        with within_reach(constrained_in(noise), "outer.lr"):
            noise.raw_sigma.data -= 0.2
    assert noise.sigma.item() == 0.0


def test_an_outer_parameter_beyond_its_type_is_not_kept():
    """lr = 1e38 and a step of 10 is infinite in single precision."""
    theta = torch.tensor(3.0, requires_grad=True)
    model = nn.Linear(1, 1, bias=False)

    def inner(model, theta, batch):
        return (model(batch) - theta).square().mean()

    def outer(model, theta, batch):
        return 100 * (model(batch) - 5).square().mean()

    optimizer = torch.optim.SGD([theta], lr=3e38)
    solver = BilevelSolver(
        BilevelProblem(inner, outer), model, torch.optim.SGD(model.parameters(), lr=0.1), theta, optimizer
    )
    weight = model.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=r"^outer parameter outer after its step is inf at step 1$"):
        solver.step([torch.ones(4, 1)], torch.ones(4, 1))
    assert theta.item() == 3.0
    assert torch.equal(model.weight, weight)
    assert (solver.inner_steps, solver.outer_steps) == (0, 0)


def test_a_run_whose_steps_are_too_large_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "LARGEST_UNCONSTRAINED", 1e6)  # as of an optimiser that takes other steps than Adam
    command = arguments(tmp_path / "run", make_cache(tmp_path / "c.h5"), c="0.2,0.5,0.8", outer__lr="1e3")
    command[1] = "inu"
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(
        f"Error: {tmp_path / 'run'}: stage sigma=0.1/learn stopped: an outer step took parts.0.exponents from 0."
    )
    assert "an end of its range, from where no gradient leads back" in line
    assert line.endswith("latest.pt (step 3)")
    assert not (tmp_path / "run" / "results.json").exists()


def test_steps_that_overshoot_step_by_step_stop_a_run_too(tmp_path):
    settings = {"outer__lr": "3", "outer__every": "1", "segmenter__steps": "60", "baselines": "false"}
    done = CliRunner().invoke(main, arguments(tmp_path / "run", make_cache(tmp_path / "c.h5"), **settings))
    assert done.exit_code == 1
    assert re.search(
        r"stopped: an outer step took sigma from [0-9.]+e-07 to [0-9.]+e-\d\d, an end of its range", done.stderr
    )


@pytest.mark.parametrize(
    ("study", "changed", "moved"),
    [
        (ridge, ("problems=1", "start=100"), "λ from 100 to 0"),
        (hyper_cleaning, ("repeats=1",), "the weight of a sample from 0.5 to 1"),
    ],
)
def test_small_studies_whose_steps_are_too_large_stop(tmp_path, monkeypatch, study, changed, moved):
    monkeypatch.setattr(study.settings, "LARGEST_UNCONSTRAINED", 1e6)
    with pytest.raises(RunError, match=f"{study.EXPERIMENT.name} stopped: an outer step took {moved}, an end of its"):
        execute(study.EXPERIMENT, tmp_path, overrides=(*changed, "outer_lr=1e3"), device="cpu", threads=1, quiet=True)


@pytest.mark.parametrize(
    ("study", "line"),
    [
        ("noise --set outer.lr=1e30", "--set outer.lr: lr must be at most 5, got 1e+30"),
        ("inu --set outer.network_lr=1e30", "--set outer.network_lr: network_lr must be at most 1000, got 1e+30"),
        ("real_world --set segmenter.lr=1e30", "--set segmenter.lr: lr must be at most 1000, got 1e+30"),
        ("real_world --set finetune.lr=1e30", "--set finetune.lr: lr must be at most 1000, got 1e+30"),
        ("unpaired --set discriminator.lr=1e30", "--set discriminator.lr: lr must be at most 1000, got 1e+30"),
        ("ridge --set outer_lr=1e30", "--set outer_lr: outer_lr must be at most 5, got 1e+30"),
        ("hyper_cleaning --set outer_lr=1e30", "--set outer_lr: outer_lr must be at most 5, got 1e+30"),
        ("sinusoid --set outer_lr=1e30", "--set outer_lr: outer_lr must be at most 1000, got 1e+30"),
    ],
)
def test_rates_of_studies(tmp_path, study, line):
    done = CliRunner().invoke(main, ["run", *study.split(), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {line}"
    assert not (tmp_path / "run").exists()
