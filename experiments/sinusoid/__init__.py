"""Few-shot sinusoid regression (Finn et al., Model-Agnostic Meta-Learning, ICML 2017, section 5.1).

A task is y = A sin(x + p), of which a few points are given. The outer parameters θ are the weights a network starts
from, and the inner problem is to adapt them to a task by a few steps of gradient descent. The inner parameters φ
are offsets from the start, zero before the first step: the adapted network has the weights θ + α φ, where φ descends
with rate lr and α, which may be learned too, scales each tensor's steps. All tasks of a meta-batch are adapted
at once: φ holds one network a task, and the inner loss is the sum over tasks.
"""

from typing import Any

from metasynth.experiments.sinusoid.problem import adapt, meta_learn, new_start, prepare
from metasynth.experiments.sinusoid.report import CONTENTS, CURVES, report
from metasynth.experiments.sinusoid.settings import SinusoidConfig

from metasynth.running.study import Experiment, StudyContext

PRESETS = {"quick": SinusoidConfig(), "standard": SinusoidConfig(steps=10_000)}


def run(context: StudyContext) -> dict[str, Any]:
    """Meta-learn every variant and adapt it, and the random start, to new tasks; a resumed run begins anew."""
    config: SinusoidConfig = context.config
    seed, device = context.seed, context.device
    context.folder.truncate(0)
    adapted = {"random": adapt(config, new_start(config, seed, device), seed, device)}
    with context.progress.task("sinusoid", len(config.variants) * config.steps) as task:
        for variant in config.variants:
            start = new_start(config, seed, device)
            for step, loss in enumerate(meta_learn(config, variant, start, seed, device), start=1):
                context.folder.append({"variant": variant, "outer_step": step, "outer_loss": loss})
                task.advance(note=f"{variant} {loss:.2f}")
            adapted[variant] = adapt(config, start, seed, device)
    context.folder.write_json(CURVES, adapted)
    untrained = adapted["random"]["curve"][0]
    rows = []
    for name, found in adapted.items():
        before, after = found["curve"][0], found["curve"][config.inner_steps]
        rows.append({"start": name, "before": before, "after": after, "fraction": after / untrained})
    return {"rows": rows}


QUESTION = "Can a network be started so that five steps on five points of a sinusoid are enough?"
EXPERIMENT = Experiment("sinusoid", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS)
