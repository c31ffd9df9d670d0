"""The contract of every strategy: the hypergradient known in closed form, for every optimiser, cold and warm."""

import numpy as np
import pytest
import torch
from problems import OPTIMISERS, STRATEGIES, ClosedForm

from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import hypergradient

CASE = ClosedForm()


def native_step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, outer: object, batch: object) -> None:
    optimiser.zero_grad()
    CASE.problem().inner_loss(model, outer, batch).backward()
    optimiser.step()


@pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hypergradient_is_the_closed_form(strategy: str, optimiser: str, warm_steps: int) -> None:
    model, outer, chosen = CASE.model(), CASE.outer(), STRATEGIES[strategy]
    inner = OPTIMISERS[optimiser](model.parameters())
    for index in range(warm_steps):
        native_step(model, inner, outer, CASE.inner_batch(50 + index))
    batches = [CASE.inner_batch(k) for k in range(chosen.inner_steps)]
    target = CASE.outer_batch()
    phi, indirect, direct = CASE.reference(model, inner, outer, batches, target)

    result, step = hypergradient(CASE.problem(), FunctionalModel(model), inner, outer, batches, target, chosen)

    assert np.allclose(torch.cat(step.parameters).numpy(), phi, rtol=1e-13, atol=1e-13)
    computed = torch.cat([result.gradients["shift"], result.gradients["stiffness"]]).numpy()
    # Relative to the part that comes through the inner step, so that the direct part hides nothing.
    assert np.linalg.norm(computed - direct - indirect) < 1e-8 * np.linalg.norm(indirect)
    assert np.linalg.norm(indirect) > 1e-3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_losses_reported_are_those_on_the_way(strategy: str) -> None:
    model, outer, chosen = CASE.model(), CASE.outer(), STRATEGIES[strategy]
    inner = OPTIMISERS["adam"](model.parameters())
    batches = [CASE.inner_batch(k) for k in range(chosen.inner_steps)]
    result, _ = hypergradient(CASE.problem(), FunctionalModel(model), inner, outer, batches, CASE.outer_batch(), chosen)
    problem = CASE.problem()
    expected = []
    for batch in batches:
        expected.append(problem.inner_loss(model, outer, batch).item())
        native_step(model, inner, outer, batch)
    assert [loss.item() for loss in result.inner_losses] == pytest.approx(expected, rel=1e-12)
    assert result.outer_loss.item() == pytest.approx(
        problem.outer_loss(model, outer, CASE.outer_batch()).item(), rel=1e-12
    )
    assert result.reference_loss is None
    assert not any(t.requires_grad for t in (*result.inner_losses, result.outer_loss))


@pytest.mark.parametrize("given", [1, 3])
def test_number_of_batches_is_the_strategys(given: int) -> None:
    model = CASE.model()
    inner = OPTIMISERS["sgd"](model.parameters())
    batches = [CASE.inner_batch(k) for k in range(given)]
    with pytest.raises(ValueError, match=rf"inner_batches must hold 2 batches .*Unrolled.*got {given}"):
        hypergradient(
            CASE.problem(),
            FunctionalModel(model),
            inner,
            CASE.outer(),
            batches,
            CASE.outer_batch(),
            STRATEGIES["unrolled-2"],
        )
