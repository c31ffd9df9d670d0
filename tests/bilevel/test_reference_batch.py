"""The correction by a reference batch: the pulled-back loss is L_outer(φ*, θ) - L_inner(φ*, θ fixed; reference)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from bilevel.segmentation import PROBLEM, Batch, batch, segmenter
from support.problems import OPTIMISERS, Array, ClosedForm
from support.strategies import EXACT
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.inner_update import InnerUpdate

CASE = ClosedForm()
REFERENCE = CASE.inner_batch(77)


def gap_along(
    direction: Array, fixed: dict[str, Tensor], phi_of: Callable[[dict[str, Tensor]], Array]
) -> Callable[[float], float]:
    """The combined loss as a function of a shift of θ along ``direction``, with θ fixed in the inner loss."""
    problem, frozen = CASE.problem(), CASE.model()

    def value(by: float) -> float:
        shift = torch.tensor(by * direction)
        outer = {
            "shift": fixed["shift"].detach() + shift[:2],
            "stiffness": fixed["stiffness"].detach() + shift[2:],
        }
        phi = torch.tensor(phi_of(outer))
        with torch.no_grad():
            frozen.head.copy_(phi[:3])
            frozen.tail.copy_(phi[3:])
            outer_loss = problem.outer_loss(frozen, outer, CASE.outer_batch())
            return (outer_loss - problem.inner_loss(frozen, fixed, REFERENCE)).item()

    return value


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", EXACT)
def test_corrected_hypergradient_is_that_of_the_difference(strategy: str, optimiser: str) -> None:
    model, outer, chosen = CASE.model(), CASE.outer(), EXACT[strategy]
    inner = OPTIMISERS[optimiser](model.parameters())
    batches = [CASE.inner_batch(k) for k in range(chosen.inner_steps)]

    def updated(theta: dict[str, Tensor]) -> Array:
        return CASE.reference(model, inner, theta, batches, CASE.outer_batch())[0]

    truth = []
    for direction in np.eye(5):
        along, step = gap_along(direction, outer, updated), 1e-3
        wide, narrow = ((along(s) - along(-s)) / (2 * s) for s in (step, step / 2))
        truth.append((4 * narrow - wide) / 3)
    result, taken = hypergradient(
        StepInputs(CASE.problem(), FunctionalModel(model), InnerUpdate(inner), outer, batches),
        CASE.outer_batch(),
        chosen,
        reference_batch=REFERENCE,
    )
    h = torch.cat(list(result.gradients.values())).numpy()
    assert np.linalg.norm(h - truth) < 1e-8 * np.linalg.norm(truth)
    assert np.allclose(torch.cat(taken.parameters).numpy(), updated(outer), rtol=1e-13, atol=1e-13)
    with torch.no_grad():
        model.head.copy_(taken.parameters[0])
        model.tail.copy_(taken.parameters[1])
    assert result.reference_loss is not None
    assert result.reference_loss.item() == pytest.approx(CASE.problem().inner_loss(model, outer, REFERENCE).item())


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("strategy", EXACT)
def test_no_hypergradient_where_the_domains_agree(strategy: str, norm: str | None) -> None:
    """Outer loss and inner loss on the same batch: their difference is exactly zero, converged or not."""

    def same_domain(model: nn.Module, outer: nn.Module, given: object) -> Tensor:
        with torch.no_grad():
            sigma = outer.sigma
        noisy = given.images + sigma * given.draws
        return PROBLEM.inner_loss(model, lambda images, draws: noisy, given)

    problem = BilevelProblem(PROBLEM.inner_loss, same_domain)
    model, outer, chosen = segmenter(norm=norm), GaussianNoise(0.2).double(), EXACT[strategy]
    inner = torch.optim.Adam(model.parameters(), lr=1e-2)
    batches = [batch(k) for k in range(chosen.inner_steps)]
    functional = FunctionalModel(model)
    plain, _ = hypergradient(StepInputs(problem, functional, InnerUpdate(inner), outer, batches), batch(9), chosen)
    assert plain.gradients["raw_sigma"].abs() > 0
    corrected, _ = hypergradient(
        StepInputs(problem, functional, InnerUpdate(inner), outer, batches), batch(9), chosen, batch(9)
    )
    assert corrected.gradients["raw_sigma"].item() == 0.0
    assert corrected.reference_loss.item() == corrected.outer_loss.item()


@pytest.mark.parametrize("strategy", EXACT)
def test_direct_dependence_is_kept(strategy: str) -> None:
    """L_outer = L_inner(φ, θ fixed; reference) + 3 θ has the hypergradient 3, all of it direct."""

    def with_direct_term(model: nn.Module, outer: Tensor, given: Tensor) -> Tensor:
        return inner_loss(model, outer.detach(), given) + 3 * outer

    def inner_loss(model: nn.Module, outer: Tensor, given: Tensor) -> Tensor:
        return (model(given) - outer).square().mean()

    torch.manual_seed(0)
    model, outer, chosen = nn.Linear(2, 1).double(), torch.tensor(0.5).double(), EXACT[strategy]
    outer.requires_grad_()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    given = torch.ones(3, 2, dtype=torch.float64)
    result, _ = hypergradient(
        StepInputs(
            BilevelProblem(inner_loss, with_direct_term),
            FunctionalModel(model),
            InnerUpdate(inner),
            outer,
            [given] * chosen.inner_steps,
        ),
        given,
        chosen,
        reference_batch=given,
    )
    assert result.gradients["outer"].item() == 3.0


def test_both_passes_start_from_the_same_buffers() -> None:
    """Losses that read the running statistics they have just moved: the outer pass must not feed the reference's."""

    def settled(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        model(given.images)
        model.eval()
        loss = PROBLEM.outer_loss(model, outer, given)
        model.train()
        return loss

    def inner_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        return settled(model, outer, replace(given, images=outer(given.images, given.draws)))

    def same_domain(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        return inner_loss(model, lambda images, draws: images + outer.sigma.detach() * draws, given)

    model, outer = segmenter(norm="batch"), GaussianNoise(0.2).double()
    inner = torch.optim.Adam(model.parameters(), lr=1e-2)
    result, _ = hypergradient(
        StepInputs(
            BilevelProblem(inner_loss, same_domain), FunctionalModel(model), InnerUpdate(inner), outer, [batch(0)]
        ),
        batch(9),
        EXACT["mixed"],
        batch(9),
    )
    assert result.reference_loss.item() == result.outer_loss.item()
    assert result.gradients["raw_sigma"].item() == 0.0
