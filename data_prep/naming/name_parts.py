"""The parts of files' names: pieces between separators, and which of them tell people and scans apart."""

import re
from collections.abc import Iterable, Sequence

_CONTRASTS = re.compile(r"(t1|t2|pd|flair|mprage|mp2rage|swi|dwi|angio)[a-z]*", re.IGNORECASE)
_SEQUENCES = {"mprage": "t1", "mp2rage": "t1"}  # their contrast
_ONLY_CHANNEL = "0000"  # what nnU-Net adds to the name of an image of one channel
_SEPARATORS = "_. -"  # the last as it stands in regular expressions


def pieces_of(name: str) -> list[str]:
    """A name in pieces, each with the separators before it."""
    return re.findall(rf"[{_SEPARATORS}]*[^{_SEPARATORS}]+|[{_SEPARATORS}]+$", name)


def bare(piece: str) -> str:
    """A piece without its separators."""
    return piece.strip(_SEPARATORS)


def shared(*lists: Sequence[str]) -> int:
    """How many pieces lists begin with in common."""
    return next((i for i, pieces in enumerate(zip(*lists, strict=False)) if len(set(pieces)) > 1), min(map(len, lists)))


def only_describe(pieces: Iterable[str]) -> bool:
    """Whether pieces of a name tell nobody apart: words, contrasts and the number of an only channel."""
    return not any(
        re.search(r"\d", piece) and not _CONTRASTS.fullmatch(piece) and piece != _ONLY_CHANNEL
        for piece in map(bare, pieces)
    )


def other_contrast(pieces: Iterable[str], others: Iterable[str]) -> bool:
    """Whether both say a contrast, and none that is the same."""
    own, its = contrasts_of(pieces), contrasts_of(others)
    return bool(own and its) and not own & its


def contrasts_of(pieces: Iterable[str]) -> set[str]:
    """The contrasts that pieces of a name say."""
    found = (match.group(1).lower() for piece in pieces if (match := _CONTRASTS.fullmatch(bare(piece))))
    return {_SEQUENCES.get(contrast, contrast) for contrast in found}
