import pytest
from bad_input.place import make_place
from bad_input.table import Place


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    template = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(template)
        make_place(template)
    made = Place(template, tmp_path_factory.mktemp("bad") / "place")
    made.restore()
    return made


@pytest.fixture
def place(shared_place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The folder, which is the working directory too."""
    monkeypatch.chdir(shared_place.path)
    return shared_place
