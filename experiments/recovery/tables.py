"""Tables of a recovery study, from its rows; a setting is known by its label, such as '0.1'."""

from collections.abc import Mapping, Sequence

from metasynth.experiments.recovery.rows import MODELS, Label, Row, error_of, is_comparable

from metasynth.report.tables import Table


def sigma_table(learned: Sequence[Row], label: Label, published: Mapping[str, float]) -> Table:
    """Preset against learned sigma (Tables 1 and 3 of the paper), one row a setting.

    Parameters
    ----------
    learned : sequence of rows
        Those of model L.
    label : callable
        The label of a ``sigma_true``.
    published : mapping
        Label -> the value the paper reports.
    """
    records = [
        {
            "preset": label(row["sigma_true"]),
            "learned": row["sigma_learned"],
            "error": error_of(row),
            "sd": row["sigma_sd"],
            "paper": published.get(label(row["sigma_true"])) if is_comparable(row) else None,
        }
        for row in learned
    ]
    headings = {
        "preset": "preset σ",
        "learned": "learned σ",
        "error": "absolute error",
        "sd": "sd over the tail",
        "paper": "paper (full scale)",
    }
    caption = "Preset and learned noise. The paper's values are for its own data and scale."
    return Table.from_records(caption, records, headings)


def exponent_table(learned: Sequence[Row], label: Label, names: Sequence[str]) -> Table:
    """Preset against learned exponents of the fields (Eq. 7), one row a setting and field.

    Parameters
    ----------
    learned : sequence of rows
        Those of model L, with ``c_true``, ``c_learned`` and ``c_sd``.
    label : callable
        The label of a ``sigma_true``.
    names : sequence of str
        Of the exponents, in their order.
    """
    records = [
        {"noise": label(row["sigma_true"]), "field": name, "preset": true, "learned": found, "error": error, "sd": sd}
        for row in learned
        for name, true, found, sd in zip(names, row["c_true"], row["c_learned"], row["c_sd"], strict=True)
        for error in [abs(found - true)]
    ]
    headings = {"noise": "preset σ", "field": "exponent", "preset": "preset c", "learned": "learned c"}
    headings |= {"error": "absolute error", "sd": "sd over the tail"}
    return Table.from_records("Preset and learned exponents of the fields, coarsest first.", records, headings)


def dice_table(rows: Sequence[Row], label: Label) -> Table:
    """Mean foreground Dice by training and test condition (Tables 2 and 4 of the paper)."""
    conditions = list(rows[0]["dice"])
    records = [
        {
            "real": label(row["sigma_true"]),
            "model": f"{row['model']} ({MODELS[row['model']]})",
            **{f"test {name}": row["dice"][name]["mean"] for name in conditions},
        }
        for row in rows
    ]
    headings = {"real": "real σ", "model": "segmenter"} | {f"test {name}": f"test {name}" for name in conditions}
    caption = (
        "Mean Dice of the foreground classes over test subjects, by test noise: N trained with the preset noise, "
        "L learning it, O trained with what L found."
    )
    return Table.from_records(caption, records, headings)


def class_table(rows: Sequence[Row], label: Label) -> Table:
    """Dice per class of each segmenter, tested on the noise of its own real images where that was tested."""
    records = []
    for row in rows:
        real = label(row["sigma_true"])
        condition = real if real in row["dice"] else next(iter(row["dice"]))
        foreground = dict(list(row["dice"][condition]["per_class"].items())[1:])
        records.append({"real": real, "test": condition, "model": row["model"], **foreground})
    headings = {"real": "real σ", "test": "test σ", "model": "segmenter"}
    headings |= {name: name for record in records for name in record if name not in headings}
    return Table.from_records("Dice per class, mean over test subjects.", records, headings)


def values_table(learned: Sequence[Row], label: Label) -> Table:
    """All observed values of an augmenter that has no sigma, one row a setting and value."""
    records = [
        {"noise": label(row["sigma_true"]), "value": name, "learned": found, "sd": row["learned_sd"][name]}
        for row in learned
        for name, found in row["learned"].items()
    ]
    headings = {"noise": "preset σ", "value": "value", "learned": "learned", "sd": "sd over the tail"}
    return Table.from_records("What was learned, in the augmenter's own units.", records, headings)
