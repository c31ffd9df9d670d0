"""Whether what was learned serves: a line of a report."""

from collections.abc import Sequence

from metasynth.experiments.real_images.tables import Naming, Row, shown

LEARNED, START = "optimised", "unlearned"


def self_checks(rows: Sequence[Row], naming: Naming) -> list[str]:
    """For every training with what was learned, frozen, and one with its start: their Dice of validation subjects.

    A hypergradient tells what lowers the loss a few steps later. Whether a segmenter that is trained with the result
    is better is another question, which these two trainings answer.
    """
    found = []
    for row in shown(rows):
        beside = [other for other in shown(rows) if other["method"] == START and _key(other) == _key(row)]
        if row["method"] == LEARNED and beside:
            ours, theirs = row["validation"], beside[0]["validation"]
            verdict = "what was learned serves" if ours > theirs else "what was learned does not serve"
            found.append(
                f"{naming(row)}: {ours:.3f} on the validation subjects, where its start has {theirs:.3f}: {verdict}. "
                "Seeds differ too; a difference as small as theirs is chance."
            )
    return found


def _key(row: Row) -> tuple[str, int]:
    return row.get("group", ""), row["subjects"]
