"""The command that lists the models of the package; it imports what it needs when it runs."""

from pathlib import Path

import click

from metasynth.cli.options import PATH
from metasynth.errors import UsageError


@click.command()
@click.argument("name", required=False)
@click.option("--add", metavar="RUN|FILE", type=PATH, help="Put a segmenter among them as NAME; needs --card.")
@click.option("--stage", metavar="NAME", help="Which segmenter of a run that has several.")
@click.option("--card", metavar="JSON", type=PATH, help="What it is: data, licence, command, Dice and more.")
def models(name: str | None, add: Path | None, stage: str | None, card: Path | None) -> None:
    """List the models that come with the package, or print the card of NAME."""
    from metasynth.predict.shipped import add_model, shipped_models
    from metasynth.running.settings.config import nearest
    from metasynth.segment.model_file import load_model

    if add is not None:
        if name is None or card is None or not name.isidentifier():
            raise UsageError("--add: expected NAME, of letters, digits and underscores, and --card JSON")
        click.echo(f"Model: {add_model(add, stage, name, card)}")
        return
    if card is not None or stage is not None:
        raise UsageError(f"{'--stage' if card is None else '--card'}: goes with --add")
    found = shipped_models()
    if name is None:
        for one in found.values():
            click.echo(f"{one.name}: {one.card['summary']} (takes {one.card['takes']}s; {one.card['licence']})")
        if not found:
            click.echo("This installation has no models; metasynth predict takes a run or a model file by --model.")
        return
    if name not in found:
        raise UsageError(f"NAME {name}: there is no such model: {nearest(name, found)}")
    model, shown = load_model(found[name].path), found[name].card
    click.echo(f"{name}: {shown['summary']}")
    click.echo(f"Classes: {', '.join(model.description.class_names[1:])}")
    click.echo(f"Takes: {model.description.needs}")
    for key in ("data", "licence", "command", "seed", "training_time", "not_for"):
        click.echo(f"{key.replace('_', ' ').capitalize()}: {shown[key]}")
    for condition, scores in shown["dice"].items():
        listed = ", ".join(f"{what} {value:.2f}" for what, value in scores.items())
        click.echo(f"Dice, {condition}: {listed}")
