"""The documentation's examples run: python blocks of the pages, doctests of every module; and what
it names is there."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "BUILD.md")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "gasn_jax").rglob("*.py")
)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_blocks(text: str, filename: str) -> int:
    """Runs the python blocks of a page, each by itself; returns their number.

    Each is padded with empty lines, so that a traceback's line numbers are the page's own.
    """
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        padding = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(padding + block[1], filename, "exec"), {"__name__": "__main__"})
    return len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # an opening fence that BLOCK does not match would go untested
    assert run_blocks(text, page) == len(re.findall(r"^\s*[`~]{3,} *python", text, re.MULTILINE))


def test_a_wrong_block_is_caught():
    page = "# Title\n\n```python\nx = 1\n```\ntext\n```python\nassert 1 == 2\n```\n"
    with pytest.raises(AssertionError) as caught:
        run_blocks(page, "page.md")
    assert caught.traceback[-1].lineno + 1 == 8


def test_what_stands_for_an_equation_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(
        r"`([\w.]+)`", text.partition("## Where the equations are")[2].partition("\n\n##")[0]
    )
    found = [name for name in names if name.count(".") == 2]
    assert len(found) > 20
    for name in found:
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(f"gasn_jax.{module}"), function)), name


@pytest.mark.parametrize("name", MODULES)
def test_the_doctests_of_a_module_pass(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    for case in doctest.DocTestFinder(exclude_empty=True).find(module):
        assert not any(doctest.SKIP in example.options for example in case.examples), case.name
    assert doctest.testmod(module).failed == 0


def test_doctests_are_found():
    module = importlib.import_module("gasn_jax.evaluation.samples")
    assert doctest.testmod(module).attempted > 0
