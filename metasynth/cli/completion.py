"""What a shell completes: experiments, presets, settings and their values, mappings and files.

Nothing here is imported or said before a shell asks; what cannot be found out completes nothing.
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from metasynth.data_prep.mapping_names import IDS
from metasynth.data_prep.remapping.curves import CURVES
from metasynth.errors import MetasynthError

if TYPE_CHECKING:
    from metasynth.running.settings.described import Setting
    from metasynth.running.study import Experiment

GROUP = "metasynth.experiments"  # as in metasynth.running.study, which is not light
Items = list[CompletionItem]


def complete_experiment(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Names of the experiments, each once though two installations may have it; none is imported."""
    return _items(sorted({point.name for point in entry_points(group=GROUP)}), incomplete)


def complete_preset(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Presets of the experiment that was named before."""
    experiment = _experiment(context)
    return _items(experiment.presets, incomplete) if experiment else []


def complete_setting(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """'KEY=DEFAULT' of every setting; once there is a '=', the values that it may have."""
    key, equals, text = incomplete.partition("=")
    settings = _settings(context)
    if not equals:
        return [CompletionItem(f"{one.key}={one.text}", help=one.line) for one in settings if one.key.startswith(key)]
    named = next((one for one in settings if one.key == key), None)
    several = param.name == "vary" or (named is not None and isinstance(named.value, tuple))
    done, comma, _ = text.rpartition(",") if several else ("", "", text)
    values = _values(named) if named else ()
    return _items([f"{key}={done}{comma}{value}" for value in values if value not in done.split(",")], incomplete)


def complete_mapping(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Names of the mappings, and files."""
    return [*_items(IDS, incomplete), *complete_file(context, param, incomplete)]


def complete_sink(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Names of the sinks, after those that stand before a comma."""
    from metasynth.sinks import names

    done, comma, _ = incomplete.rpartition(",")
    return _items([f"{done}{comma}{name}" for name in names() if name not in done.split(",")], incomplete)


def complete_cohort(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Names of the embedded cohorts."""
    from metasynth.data_prep.cohorts.cohort import COHORTS

    return _items(COHORTS, incomplete)


def complete_curve(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Names of the curves of intensities."""
    return _items(CURVES, incomplete)


def complete_file(context: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Files, as the shell finds them."""
    return [CompletionItem(incomplete, type="file")]


def _items(names: Iterable[str], incomplete: str) -> Items:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _experiment(context: click.Context) -> "Experiment | None":
    from metasynth.running.study import load_experiment

    # Where an option's value is what is completed, click has not yet taken the arguments that it found.
    name = context.params.get("experiment") or next(iter(context.args), "")
    try:
        return load_experiment(name) if name else None
    except MetasynthError:
        return None


def _settings(context: click.Context) -> "list[Setting]":
    """Those of the preset that was named before, or of the quick one."""
    from metasynth.running.settings.described import list_settings

    experiment = _experiment(context)
    preset = context.params.get("preset") or "quick"
    return list(list_settings(experiment.presets[preset])) if experiment and preset in experiment.presets else []


def _values(setting: "Setting") -> tuple[str, ...]:
    if isinstance(setting.value, bool):
        return ("true", "false")
    return setting.choices or (setting.text,)
