"""Settings that are named arguments of what is made with them, such as a network of another package."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

from metasynth.text import RepeatedKeyError, parse_json


@final
@dataclass(frozen=True)
class Arguments:
    """Named arguments as a JSON object, such as ``{"features": [8, 16]}``."""

    NOTATION: ClassVar[str] = "a JSON object"

    text: str = "{}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From JSON; ValueError if it is something else."""
        try:
            found = parse_json(text)
        except RepeatedKeyError:
            raise
        except (ValueError, RecursionError):  # not JSON, a number of too many digits, or too deep
            found = None
        return cls.from_json(found)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """What `to_json` gave; ValueError if it is something else."""
        if not isinstance(value, dict):
            raise ValueError('must be a JSON object such as {"features": [8, 16]}')
        return cls(json.dumps(value, sort_keys=True, allow_nan=False))

    def to_json(self) -> dict[str, Any]:
        """The arguments by name."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    def of_class(self, name: str) -> Self:
        """These of the class ``name``, as ``segmenter.monai`` gave it; without a name as they are."""
        return self.from_json({**self.to_json(), "class": name}) if name else self

    def made_with(self, given: Self) -> Self:
        """Those of the same class with other arguments, as ``segmenter.monai_arguments`` gave them."""
        kept = {key: value for key, value in self.to_json().items() if key == "class"}
        return self.from_json({**kept, **given.to_json()})


NO_ARGUMENTS = Arguments()
