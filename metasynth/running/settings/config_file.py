"""Settings from a file: the ``config.json`` of a run, or TOML.

What a file gives comes between the preset and ``--set``, and is taken as so many ``--set``: a run records what results.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metasynth.errors import DataError, UsageError
from metasynth.lines import logger
from metasynth.running.manifest import FORMAT, UNSEALED
from metasynth.running.settings.config import FileOverride, hint_of, renamed_of
from metasynth.running.settings.values import from_json, is_plain_dataclass, parse, to_text, told
from metasynth.schema import TEXT, entries, expect, json_value, mapping
from metasynth.text import read_lines

_LOG = logger(__name__)

_RUN = entries({"experiment": TEXT, "config": mapping(json_value)})
_NOTHING = object()
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def read_config_file(path: Path, experiment: str, start: Any) -> tuple[FileOverride, ...]:
    """The settings of a file, each as ``--set`` would give it.

    Parameters
    ----------
    path : Path
        A ``.json`` file as a run writes it, whose preset, seed and cache are left aside, or a ``.toml`` file, whose
        keys are nested in tables or dotted. Neither need name every setting.
    experiment : str
        Whose settings they must be, where the file says.
    start : dataclass
        Settings of that experiment.

    Raises
    ------
    UsageError
        The file cannot be read, is none of the two, or holds a setting that is unknown or of another type: with the
        file, and the line or key.
    """
    where = f"--config {path}"
    values = _read(path, where, experiment)
    found: dict[str, FileOverride] = {}
    try:
        for key, value in _leaves(start, values):
            if key in found:
                raise UsageError(f"{key}: expected it once, got it twice")
            found[key] = FileOverride(f"{key}={_text(start, key, value)}", f"{where}:")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    _LOG.info("%s: settings %s", path, ", ".join(found) or "none")
    return tuple(found.values())


def _read(path: Path, where: str, experiment: str) -> Mapping[str, Any]:
    if path.suffix not in (".json", ".toml"):
        raise UsageError(f"{where}: expected the config.json of a run, or a file whose name ends in .toml")
    text = "\n".join(read_lines(path, UsageError, where))
    return _run_settings(text, where, experiment) if path.suffix == ".json" else _toml(text, where)


def _run_settings(text: str, where: str, experiment: str) -> Mapping[str, Any]:
    try:
        run = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}, line {error.lineno}: is not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too deep
        raise UsageError(f"{where}: is not valid JSON: {error}") from error
    if not isinstance(run, dict) or run.get("format") not in (FORMAT, UNSEALED):
        raise UsageError(f"{where}: expected the config.json of a run (its format {FORMAT!r}), got something else")
    try:
        expect(run, _RUN, where)
    except DataError as error:
        raise UsageError(str(error)) from error
    if run["experiment"] != experiment:
        raise UsageError(f"{where}: expected settings of {experiment!r}, got those of a run of {run['experiment']!r}")
    settings: Mapping[str, Any] = run["config"]
    return settings


def _toml(text: str, where: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        place = _PLACE.search(reason)
        last = len(text.rstrip().splitlines()) or 1
        line = f", line {place[1] or last}" if place else ""
        raise UsageError(f"{where}{line}: is not valid TOML: {_PLACE.sub('', reason)}") from error


def _leaves(start: Any, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry; a table is one where a setting is, and else a group or an unknown name."""
    for name, value in values.items():
        key = prefix + name
        there = _lookup(start, key)
        is_group = is_plain_dataclass(type(there))
        is_unknown = there is _NOTHING and not renamed_of(start, key)
        if isinstance(value, Mapping) and (is_group or (is_unknown and value)):
            yield from _leaves(start, value, f"{key}.")
        else:
            yield key, value


def _lookup(config: Any, key: str) -> Any:
    """What the configuration holds by a dotted key."""
    for name in key.split("."):
        config = getattr(config, name, _NOTHING) if is_plain_dataclass(type(config)) else _NOTHING
    return config


def _text(start: Any, key: str, value: Any) -> str:
    """The value as ``--set`` takes it."""
    hint = hint_of(start, key)
    problem = json_value(value)
    if problem:
        raise UsageError(f"{key}: expected {problem[1]}, got {told(problem[2])}")
    setting = from_json(hint, value, key)
    text = to_text(setting)
    if not _reads_back(hint, text, setting):
        raise UsageError(f"{key}: expected a value that --set can give, got {told(value)}")
    return text


def _reads_back(hint: Any, text: str, setting: Any) -> bool:
    """Whether a text is the setting to ``--set``: a comma in an item of a list would end it, blanks around are lost."""
    try:
        return bool(parse(hint, text.strip(), "") == setting)
    except UsageError:
        return False
