"""Data hyper-cleaning: which of the training labels are wrong, told by a few images whose labels are right?

Half of the labels of scikit-learn's digits are replaced by wrong ones. Every training sample i has a weight
w_i = sigmoid(theta_i), and the classifier φ descends mean_i w_i CE(φ; x_i, y_i). The outer loss is the cross-entropy
of the updated classifier on a small clean validation set; its hypergradient lowers the weights of samples whose
gradients do not help there. The weights found are then used to train anew, beside classifiers trained on other
selections of the samples.
"""

from typing import Any

import torch
from metasynth.experiments.hyper_cleaning.problem import (
    compare,
    corrupt,
    found_fraction,
    learn_weights,
    prepare,
    read_digits,
    take,
)
from metasynth.experiments.hyper_cleaning.report import CONTENTS, WEIGHTS, report
from metasynth.experiments.hyper_cleaning.settings import DIGITS, HyperCleaningConfig

from metasynth.running.seeding import derive_seed, generator_for
from metasynth.running.study import Experiment, StudyContext

PRESETS = {"quick": HyperCleaningConfig(), "standard": HyperCleaningConfig(hidden=32, steps=3000, repeats=5)}


def run(context: StudyContext) -> dict[str, Any]:
    """Repeat with other divisions and corruptions; a resumed run begins anew."""
    config: HyperCleaningConfig = context.config
    digits = read_digits(context.data, context.device)
    context.folder.truncate(0)
    rows, groups = [], []
    sizes = [config.train, config.validation, DIGITS - config.train - config.validation]
    with context.progress.task("hyper-cleaning", config.repeats * config.steps) as task:
        for repeat in range(config.repeats):
            seed = derive_seed(context.seed, "repeat", repeat)
            order = torch.randperm(DIGITS, generator=generator_for(seed, "split"))
            (images, truth), validation, test = (take(digits, indices) for indices in order.split(sizes))
            count = round(config.corrupted * config.train)
            labels, wrong = corrupt(truth, count, generator_for(seed, "corruption"))
            train = images, labels
            for step, weights in enumerate(learn_weights(config, seed, train, validation), start=1):
                found = found_fraction(weights, wrong)
                context.folder.append({"repeat": repeat, "outer_step": step, "found": found})
                task.advance(note=f"{found:.1%} found")
            accuracy = compare(config, seed, train, wrong, weights, validation, test)
            rows.append({"repeat": repeat, "found": found, "accuracy": accuracy})
            groups.append({"clean": weights[~wrong].tolist(), "corrupted": weights[wrong].tolist()})
    context.folder.write_json(WEIGHTS, groups)
    return {"rows": rows}


QUESTION = "Which training labels are wrong, told by a few images whose labels are right?"
EXPERIMENT = Experiment("hyper_cleaning", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS)
