"""Hypergradients by the implicit function theorem, at an inner optimum."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, norm_of, pull
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.patched.replay import Replay
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, LinearSolver, Vector
from metasynth.bilevel.update.updates import undifferentiated_steps


@dataclass(frozen=True)
class Implicit(HypergradientStrategy):
    """K ordinary inner steps; then the derivative of the optimum they are taken to have reached.

    The invariant differentiated is `g(φ*(θ), θ) = ∂L_inner/∂φ = 0`, which gives, with `v = ∂L_outer/∂φ*` and
    `H = ∂²L_inner/∂φ²`,

        h = -(∂g/∂θ)ᵀ x,      (H + damping I) x = v

    on the last inner batch, at φ after the K steps. It is the hypergradient of a problem solved to its end, whichever
    way the steps went; away from an optimum it is biased. The optimiser's own weight decay is no part of L_inner:
    for an optimum of loss plus decay (SGD, Adam, RMSprop) set the solver's damping to the decay. Nor does the optimum
    depend on a learning rate: hyperparameters of the update cannot be learned this way and are refused.

    With several processes each product with H is averaged over them (one exchange each), so that all make the same
    iterations on the mean Hessian.

    Costs, beyond K plain steps: one pass with its graph (3, in passes of all convolutions) and about 8 for each product
    with H; memory is that of double backward, whatever K.

    Where H + damping I is not positive definite φ is no minimum, and the invariant says nothing. Conjugate gradients
    then stop at what they have: an x on directions of positive curvature alone, or x = v if v has none, which takes H
    for the identity (T1-T2; Luketina et al. 2016). ``negative_curvature`` says so; damping above the most negative
    curvature, or more inner steps, mends it.

    Reported as diagnostics: ``converged`` and ``negative_curvature`` (1 or 0), ``iterations`` and ``residual`` of the
    solver, and ``inner_gradient`` = |g| at φ*, which is to be small.

    Parameters
    ----------
    solver : LinearSolver
        `ConjugateGradient` or `Neumann`, with its tolerance and damping.
    steps : int
        K >= 1.
    """

    solver: LinearSolver = field(default_factory=ConjugateGradient)
    steps: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.solver, LinearSolver):
            raise ValueError(
                f"solver must be a LinearSolver such as ConjugateGradient(), got {type(self.solver).__name__}"
            )
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {self.steps!r}")

    @property
    def inner_steps(self) -> int:
        """K."""
        return self.steps

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`; ValueError if the update has learned hyperparameters."""
        model, update, batches = inputs.model, inputs.update, inputs.batches
        for name, verb in (("hyperparameters", "do"), ("preconditioner", "does")):
            if getattr(update, name) is not None:
                raise ValueError(
                    f"Implicit differentiates an inner optimum, which the update's {name} {verb} not enter; use "
                    f"Unrolled or Mixed to learn them, or InnerUpdate({name}=None)"
                )
        twin = update.start(list(model.model.parameters()))
        parameters, losses = undifferentiated_steps(inputs, twin, model.refresh(), batches[:-1])
        replay = Replay(model, inputs.outer, parameters)
        parameters, last = undifferentiated_steps(inputs, twin, parameters, batches[-1:])
        learned = list(inputs.learned.values())
        # The optimum is one in the parameters that the optimiser holds; any others are constants of the problem.
        held = {id(p) for group in update.optimizer.param_groups for p in group["params"]}
        is_moved = [id(p) in held for p in model.model.parameters()]
        diagnostics: dict[str, float] = {}

        def pullback(cotangents: Sequence[Tensor | None]) -> Gradients:
            # The draws of the last step are used again, so that the random stream is that of K plain steps.
            with replay.again():
                loss = inputs.inner_loss(parameters, batches[-1])
                gradients = gradient_of(loss, parameters, create_graph=True)
            # Over all processes, so that each solves for the same parameters, whichever of them its own batch reaches.
            means = update.average([None if g is None else g.detach() for g in gradients])
            trained = [i for i, mean in enumerate(means) if mean is not None and is_moved[i]]
            found: Gradients = [None] * len(learned)
            if any(cotangents[i] is not None for i in trained):
                g, phi = [gradients[i] for i in trained], [parameters[i] for i in trained]
                given = [cotangents[i] for i in trained]
                target = [torch.zeros_like(p) if v is None else v for p, v in zip(phi, given, strict=True)]

                def hessian_product(vector: Vector) -> Vector:
                    products = update.average(pull(g, vector, phi, retain_graph=True))
                    return [torch.zeros_like(p) if hv is None else hv for hv, p in zip(products, phi, strict=True)]

                solution = self.solver.solve(hessian_product, target)
                found = pull(g, [-x for x in solution.x], learned)
                diagnostics.update(
                    converged=float(solution.converged),
                    negative_curvature=float(solution.negative_curvature),
                    iterations=float(solution.iterations),
                    residual=solution.residual,
                    inner_gradient=norm_of(means),
                )
            model.release()
            return found

        return InnerStep(
            parameters=[p.detach() for p in parameters],
            buffers=model.buffers(),
            optimizer=twin,
            losses=(*losses, *last),
            pullback=pullback,
            diagnostics=diagnostics,
        )
