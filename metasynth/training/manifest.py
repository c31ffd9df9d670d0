"""What identifies a run: the content of its ``config.json``."""

import json
from collections.abc import Mapping
from typing import Any

from metasynth.training.jsonlines import encode

FORMAT = "metasynth-run/1"
PACE = "pace."  # settings that no result depends on, and a resumed run may change
Json = dict[str, Any]


def make_manifest(experiment: str, preset: str, seed: int, config: Json, data: Json) -> Json:
    """What identifies a run; ``data`` has ``path``, ``digest`` and ``given`` (the user named it).

    It may have ``others`` too: the paths and digests of further caches, by the settings that name them ("labels", or
    "tests.flash-3" of several).
    """
    parts = {"experiment": experiment, "preset": preset, "seed": seed, "config": config, "data": data}
    return {"format": FORMAT, **parts}


def normal(value: Mapping[str, Any]) -> Json:
    """The value as it reads back from JSON."""
    normal: Json = json.loads(encode(value))
    return normal


def differing(old: Json, new: Json) -> list[str]:
    """Each setting that differs, as 'key: old -> new', but for the pace; of data the digests count, not the places."""
    before, after = flatten(old), flatten(new)
    others = {**old.get("data", {}).get("others", {}), **new.get("data", {}).get("others", {})}
    places = {"data.path", "data.given"}
    places |= {f"data.others.{name}.path" for name in others} | {f"config.{name.partition('.')[0]}" for name in others}
    for place in places:
        before.pop(place, None)
        after.pop(place, None)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    keys = [key for key in keys if not key.startswith(f"config.{PACE}")]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Json:
    """One level of dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: Json = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
