"""Ridge regression: is the weight decay that hypergradients learn the one that dense linear algebra finds?

The inner problem is ridge regression, φ*(λ) = argmin |Xφ - y|² / n + λ |φ|², the outer loss the mean squared error on
held-out rows, and λ = exp(θ) is learned, by differentiating through the inner steps or by the implicit function
theorem. φ*(λ) has a closed form, so that the best λ is known without either.
"""

from itertools import product
from typing import Any

from metasynth.experiments.ridge.problem import GRID, best_decay, check, draw, held_out_loss, learn_decay, prepare
from metasynth.experiments.ridge.report import CONTENTS, CURVES, report
from metasynth.experiments.ridge.settings import RidgeConfig

from metasynth.running.study import Experiment, StudyContext

PRESETS = {"quick": RidgeConfig(), "standard": RidgeConfig(start=(1e-3, 0.01, 0.1, 1.0), steps=100, problems=5)}


def run(context: StudyContext) -> dict[str, Any]:
    """Learn λ of every regression, from every start and by every strategy; a resumed run begins anew."""
    config: RidgeConfig = context.config
    context.folder.truncate(0)
    rows, curves = [], []
    cases = list(product(config.strategies, config.start))
    with context.progress.task("ridge", config.problems * len(cases) * config.steps) as task:
        for problem in range(config.problems):
            train, validation = draw(config, context.seed, problem)
            optimum = best_decay(train, validation)
            curves.append([held_out_loss(one, train, validation) for one in GRID])
            for strategy, start in cases:
                case = {"problem": problem, "strategy": strategy, "start": start}
                learning = learn_decay(config, strategy, start, train, validation)
                for step, learned in enumerate(learning, start=1):
                    context.folder.append({**case, "outer_step": step, "decay": learned.value})
                    task.advance(note=f"λ {learned.value:.4f}")
                decay = learned.value
                found = {"learned": decay, "optimum": optimum, "relative_error": abs(decay / optimum - 1)}
                losses = {"loss": learned.loss, "least_loss": held_out_loss(optimum, train, validation)}
                rows.append({**case, **found, **losses})
    context.folder.write_json(CURVES, curves)
    return {"rows": rows}


QUESTION = "Is the weight decay that hypergradients learn the one that linear algebra finds?"
EXPERIMENT = Experiment("ridge", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS, check=check)
