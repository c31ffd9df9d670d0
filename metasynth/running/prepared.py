"""The caches that a run reads: as its manifest names them, and whether they fit an augmenting network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PreparedData:
    """The cache a run reads: its place and the digest of its content.

    ``others`` are the further files of a study that reads several, by the settings that name them: "labels", or
    "tests.flash-3" of several, and "synthesis.priors" and "segmenter.start", which are no caches.
    """

    path: Path
    digest: str
    others: Mapping[str, "PreparedData"] = field(default_factory=dict)

    def described(self, given: bool) -> dict[str, Any]:
        """The ``data`` of a manifest; ``given``: whether the user named the cache."""
        others = {
            name: {"path": str(Path(one.path).resolve()), "digest": one.digest} for name, one in self.others.items()
        }
        source = {"path": str(Path(self.path).resolve()), "digest": self.digest, "given": given}
        return {**source, "others": others} if others else source
