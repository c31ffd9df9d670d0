"""learn2learn: a clone of the model that adapts by gradient descent, and lets derivatives through to what it is of."""

from collections.abc import Callable

import torch
from learn2learn.algorithms.maml import MAML

from benchmarks.peers.problem import Problem


def adapted(given: Problem) -> Callable[[], object]:
    """K steps of a clone; the trained weights are copied back."""
    maml, theta = MAML(given.model, lr=given.rate), list(given.outer.parameters())

    def step() -> None:
        learner = maml.clone()
        for _ in range(given.steps):
            learner.adapt(given.inner_loss(learner.module, given.outer, next(given.train)))
        loss = given.outer_loss(learner.module, given.outer, next(given.held_out))
        given.outer_optimizer.zero_grad()
        loss.backward(inputs=theta)
        given.outer_optimizer.step()
        with torch.no_grad():
            for own, trained in zip(maml.parameters(), learner.parameters(), strict=True):
                own.copy_(trained)

    return step


def from_a_start(given: Problem) -> Callable[[], object]:
    """A clone of the start itself for each task, one after another."""
    maml, loss = MAML(given.outer, lr=given.rate), torch.nn.functional.mse_loss

    def step() -> None:
        given.outer_optimizer.zero_grad()
        support, query = [next(given.train) for _ in range(given.steps)], next(given.held_out)
        for task in range(len(query[0])):
            learner = maml.clone()
            for x, y in support:
                learner.adapt(loss(learner(x[task]), y[task]))
            (loss(learner(query[0][task]), query[1][task]) / len(query[0])).backward()
        given.outer_optimizer.step()

    return step


SOLVERS = {"ridge": adapted, "cleaning": adapted, "sinusoid": from_a_start, "digits": adapted}
UNABLE = {"noise": "its fast adaptation is plain gradient descent; it has no differentiable Adam"}
