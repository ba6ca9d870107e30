import pytest

from gasn_jax.data import locate


@pytest.fixture(autouse=True)
def no_data_around(monkeypatch, tmp_path):
    monkeypatch.delenv(locate.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(locate, "_CHECKOUT", tmp_path / "elsewhere" / "checkout")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def put(folder, name="set/file"):
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text("")
    return path


def test_the_argument_comes_before_the_environment(monkeypatch, tmp_path):
    first, second = put(tmp_path / "a"), put(tmp_path / "b")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "b"))
    assert locate.find("set/file", tmp_path / "a", source="") == first
    assert locate.find("set/file", source="") == second
    assert locate.find("set/file", "", source="") == second  # an empty flag is no choice


def test_the_defaults_are_beside_the_current_directory_then_beside_the_checkout(tmp_path):
    beside_checkout = put(tmp_path / "elsewhere" / "shared" / "data")
    (tmp_path / "elsewhere" / "checkout").mkdir()
    assert locate.find("set/file", source="").samefile(beside_checkout)
    beside_current = put(tmp_path / "shared" / "data")
    assert locate.find("set/file", source="").samefile(beside_current)


def test_a_choice_is_an_order(monkeypatch, tmp_path):
    put(tmp_path / "shared" / "data")
    with pytest.raises(locate.MissingDataError):
        locate.find("set/file", tmp_path / "empty", source="")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(locate.MissingDataError):
        locate.find("set/file", source="")


def test_a_missing_set_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        locate.find("set/file", source="https://example.org/set")
    line = str(caught.value)
    assert isinstance(caught.value, locate.DataError)
    assert "\n" not in line
    assert "set/file" in line and "https://example.org/set" in line
    assert str(tmp_path / "shared" / "data") in line
    assert str(tmp_path / "elsewhere" / "shared" / "data") in line


def test_a_folder_is_no_data_file(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(locate.MissingDataError):
        locate.find("set", tmp_path, source="")


def test_a_home_directory_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate.data_dirs("~/sets") == (tmp_path / "sets",)


def test_a_file_that_may_not_be_read_is_one_line(monkeypatch, tmp_path):
    put(tmp_path / "a")
    monkeypatch.setattr(locate.os, "access", lambda path, mode: False)  # a mode binds no root
    with pytest.raises(locate.DataError, match=r"data file .*a/set/file: permission denied"):
        locate.find("set/file", tmp_path / "a", source="")
