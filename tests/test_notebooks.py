"""Every notebook runs from top to bottom in a directory of its own, in two processor minutes."""

import resource
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "colabs").glob("*.ipynb"))
# Of processor time, which other work on the machine changes little; and of one cell, on a clock.
MAX_SECONDS, MAX_CELL_SECONDS = 120, 600


def execute(notebook: nbformat.NotebookNode, directory: Path) -> None:
    client = nbclient.NotebookClient(
        notebook,
        timeout=MAX_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(directory)}},
    )
    client.execute()


@pytest.fixture(autouse=True)
def kernel_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no start-up files of the user


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path):
    # a notebook's reader imports functions; command-line flags do not exist there
    assert "FLAGS" not in path.read_text(encoding="utf-8")
    start = _processor_seconds()
    execute(nbformat.read(path, as_version=4), tmp_path)
    assert 1 < _processor_seconds() - start < MAX_SECONDS


def test_a_failing_cell_is_caught(tmp_path):
    cell = nbformat.v4.new_code_cell("import gasn_jax; assert False")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(nbformat.v4.new_notebook(cells=[cell]), tmp_path)


def _processor_seconds():
    """Of the processes that this one started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
