"""The command that prints what settings an experiment has; it imports what it needs when it runs."""

import json

import click

from metasynth.cli.options import EXPERIMENT, PRESET


@click.command()
@EXPERIMENT
@PRESET
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def settings(experiment: str, preset: str | None, as_json: bool) -> None:
    """Print every setting of EXPERIMENT: its value in the preset, as --set takes it, what it may be and what it means.

    A value of --set is quoted where a shell would read more in it than text.
    """
    from metasynth.running.request import preset_settings
    from metasynth.running.settings.described import list_settings
    from metasynth.running.study import load_experiment

    preset = preset or "quick"
    found = list(list_settings(preset_settings(load_experiment(experiment), preset)))
    if as_json:
        listed = {"experiment": experiment, "preset": preset, "settings": [setting.to_json() for setting in found]}
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    for setting in found:
        click.echo(f"{setting.key}={setting.text}  ({setting.kind})")
        click.echo(f"    {setting.line or 'Not described.'}")
