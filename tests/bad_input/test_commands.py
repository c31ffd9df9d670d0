"""Words that are no command or option of one."""

from bad_input.table import Place, Row, table


@table(
    Row("rum", 2, "no command 'rum': did you mean 'run'?"),
    Row("--colour", 2, "No such option '--colour'."),
    Row("list extra", 2, "Got unexpected extra argument (extra)"),
    Row("list --all", 2, "No such option '--all'."),
)
def test_commands(place: Place, row: Row) -> None:
    place.refuses(row)
