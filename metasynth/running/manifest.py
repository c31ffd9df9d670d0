"""What identifies a run: the content of its ``config.json``.

It carries its own digest, so that an edited one is noticed, and its format says that all files of the run are sealed:
one without its digest is then refused. Runs of the format before had no digests; they are read and gone on with,
checked as far as they can be.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metasynth.errors import DataError, UsageError
from metasynth.running.integrity.json_files import Json, check_digest, read_json_file, with_digest, without_digest
from metasynth.running.jsonlines import encode
from metasynth.running.settings.renamed import all_renewed
from metasynth.schema import COUNT, FLAG, TEXT, entries, expect, json_value, mapping

CONFIG = "config.json"
FORMAT, UNSEALED = "metasynth-run/2", "metasynth-run/1"
MANIFEST = entries(
    {
        "experiment": TEXT,
        "preset": TEXT,
        "seed": COUNT,
        "config": mapping(json_value),
        "data": entries({"path": TEXT, "digest": TEXT, "given": FLAG}),
    }
)
PACE = "pace."  # settings that no result depends on, and a resumed run may change


def make_manifest(experiment: str, preset: str, seed: int, config: Json, data: Json) -> Json:
    """What identifies a run; ``data`` has ``path``, ``digest`` and ``given`` (the user named it).

    It may have ``others`` too: the paths and digests of further caches, by the settings that name them ("labels", or
    "tests.flash-3" of several).
    """
    parts = {"experiment": experiment, "preset": preset, "seed": seed, "config": config, "data": data}
    return with_digest({"format": FORMAT, **parts})


def read_manifest(run: Path) -> Json:
    """The manifest of a run's folder, checked.

    Raises
    ------
    UsageError
        The folder holds no run, or one of another format.
    DataError
        The manifest is damaged, or was changed since it was written.
    """
    path = run / CONFIG
    if not path.is_file():
        raise UsageError(f"{run}: holds no run ({CONFIG} is missing)")
    manifest = read_json_file(path)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found not in (FORMAT, UNSEALED):
        raise UsageError(f"{path}: expected a run of format {FORMAT!r}, got {found!r}")
    parts = check_digest(path, manifest, required=found == FORMAT)
    expect(parts, MANIFEST, str(path))
    unknown = parts.keys() - {"format", "experiment", "preset", "seed", "config", "data"}
    if unknown:
        raise DataError(f"{path}: unknown entry {min(unknown)!r}")
    checked: Json = manifest
    return checked


def normal(value: Mapping[str, Any]) -> Json:
    """The value as it reads back from JSON."""
    normal: Json = json.loads(encode(value))
    return normal


def renewed_manifest(manifest: Json, config: Any) -> Json:
    """The manifest with the names that the settings of ``config`` have today."""
    return {**manifest, "config": all_renewed(config, manifest["config"])}


def differing(old: Json, new: Json) -> list[str]:
    """Each setting that differs, as 'key: old -> new', but for the pace; of data the digests count, not the places.

    Data that a module draws follow from the seed: the digest of its text, which the manifest has in their place, tells
    versions of the program apart, and these may go on with a run.
    """
    before, after = flatten(without_digest(old)), flatten(without_digest(new))
    others = {**old.get("data", {}).get("others", {}), **new.get("data", {}).get("others", {})}
    places = {"data.path", "data.given", "format"}
    places |= {f"data.others.{name}.path" for name in others}
    places |= {f"config.{setting}" for name in others for setting in (name, name.partition(".")[0])}
    if str(before.get("data.path")).endswith(".py"):
        places.add("data.digest")
    for place in places:
        before.pop(place, None)
        after.pop(place, None)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    keys = [key for key in keys if not key.startswith(f"config.{PACE}")]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys]


def require_same(path: Path, recorded: Json, manifest: Mapping[str, Any], config: Any) -> None:
    """UsageError, naming each setting that differs, unless the run at ``path`` was made with this manifest."""
    differences = differing(renewed_manifest(recorded, config), normal(manifest))
    if differences:
        raise UsageError(f"{path}: cannot resume with other settings: {'; '.join(differences)}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Json:
    """One level of dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: Json = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
