"""How commands of the documentation are made small: the same commands with settings that take a second."""

from itertools import pairwise, product

from support import tiny_comparison, tiny_noise

TINY_NOISE = tiny_noise.SETTINGS | {"segmenter.steps": "4", "outer.warmup": "2"}
TINY_REAL = tiny_comparison.SETTINGS | {
    "segmenter.steps": "4",
    "methods": "naive,supervised,parametric_fixed",
}
TINY_UNPAIRED = {
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": "4",
    "discriminator.widths": "3,4",
    "discriminator.batch_size": "2",
    "discriminator.steps": "4",
    "outer.batch_size": "2",
    "outer.warmup": "2",
    "outer.every": "1",
    "generator.network": "2,2",
    "synthesis.elastic_nodes": "4",
    "baseline.elastic_nodes": "4",
    "pace.checkpoint_every": "2",
    "pace.workers": "0",
}
SMALL: dict[str, dict[str, str]] = {
    "noise": TINY_NOISE,
    "inu": TINY_NOISE | {"network": "4,4"},
    "real_world": TINY_REAL,
    "cross_contrast": TINY_REAL,
    "unpaired": TINY_UNPAIRED,
    "label_maps": {key: value for key, value in TINY_NOISE.items() if key.split(".")[0] in ("segmenter", "pace")},
    "ridge": {"steps": "3", "inner_steps": "3", "problems": "1"},
    "hyper_cleaning": {"train": "50", "validation": "20", "steps": "5", "batch_size": "20", "repeats": "1"},
    "sinusoid": {"steps": "3", "tasks": "2", "test_tasks": "4", "widths": "5"},
    "coins": {},
}
"""The least of each study, by its name."""

LABELS, REAL, OTHER = "stock-labels.h5", "stock-real.h5", "stock-other.h5"
CACHES: dict[str, tuple[str, ...]] = {
    "noise": ("--data", LABELS),
    "inu": ("--data", LABELS),
    "label_maps": ("--data", LABELS),
    "real_world": ("--data", REAL),
    "cross_contrast": ("--data", REAL, "--set", f"labels={LABELS}", "--set", f"tests=FLASH={OTHER}"),
    "unpaired": ("--data", REAL),
}
"""What stands for the embedded cohorts, which take a minute to make."""

DEFAULTS = (
    "subjects.train",
    "network",
    "methods",
)  # settings that a command may say otherwise; the others are made small


def options(words: list[str], name: str) -> list[str]:
    """The values of a repeatable option."""
    return [value for word, value in pairwise(words) if word == name]


def without(words: list[str], *names: str) -> list[str]:
    """The words without some options and their values."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in names:
            next(rest)
        else:
            kept.append(word)
    return kept


def small_run(words: list[str]) -> list[str]:
    """`metasynth run EXPERIMENT ...` as one small run: of a grid, the run with the first values."""
    experiment = words[2]
    varied = [vary.partition("=") for vary in options(words, "--vary")]
    single = without(words, "--vary", "--seeds", "--jobs", "--threads", "--preset")
    preset = options(words, "--preset")
    single = [word.replace(",atlas,", ",") for word in single]  # it would take a minute, and has tests of its own
    first = [part for key, _, values in varied for part in ("--set", f"{key}={values_of(values)[0]}")]
    given = [setting.partition("=")[0] for setting in options(words, "--set")]
    other = {"segmenter.widths"} if "segmenter.network" in given else set()  # networks have sizes of their own
    small = {key: value for key, value in SMALL[experiment].items() if key not in other}
    if any(name.endswith("-3d") for name in preset):
        small["segmenter.patch_size"] = "16"  # volumes are small here
    defaults = [p for key in DEFAULTS if key in small and key not in given for p in ("--set", f"{key}={small[key]}")]
    least = [part for key, value in small.items() if key not in DEFAULTS for part in ("--set", f"{key}={value}")]
    caches = () if "--data" in words else CACHES.get(experiment, ())
    chosen = ["--preset", *preset] if preset else []
    return [*single, *caches, *chosen, *first, *defaults, *least, "--device", "cpu", "--threads", "1", "--quiet"]


def values_of(text: str) -> list[str]:
    """The values of a --vary."""
    return text.split(";" if ";" in text else ",")


def runs_of_grid(words: list[str]) -> list[list[str]]:
    """The settings of every run that a command stands for, as overrides."""
    fixed = options(words, "--set")
    varied = [vary.partition("=") for vary in options(words, "--vary")]
    return [
        [*fixed, *(f"{key}={value}" for (key, *_), value in zip(varied, values, strict=True))]
        for values in product(*(values_of(text) for *_, text in varied))
    ]
