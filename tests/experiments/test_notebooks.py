"""The stored notebooks are what their source gives, and show nothing of the machine that ran them."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from experiments.notebooks.build import HOME, SOURCES, execute, notebook


def stored(name: str) -> nbformat.NotebookNode:
    return nbformat.read(HOME / f"{name}.ipynb", as_version=4)


def outputs(book: nbformat.NotebookNode) -> list:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_notebook_has_a_source():
    assert {path.stem for path in HOME.glob("*.ipynb")} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_stored_notebook_is_executed_clean_and_small(name: str):
    path, book = HOME / f"{name}.ipynb", stored(name)
    nbformat.validate(book)
    assert [cell.source for cell in book.cells] == [cell.source for cell in notebook(SOURCES[name]).cells]
    numbers = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert not [output for output in outputs(book) if output.output_type == "error"]
    assert not [output for output in outputs(book) if output.get("name") == "stderr"]
    text = "\n".join(str(output) for output in outputs(book))
    assert not re.search(r"/(home|root|tmp|work|usr|Users|private)/|\d+ ?it/s|\b\d{8}-\d{6}\b", text)
    assert str(Path.home()) not in text
    assert path.stat().st_size < 200_000


def test_source_tells_words_from_code():
    book = notebook("# Title\n---\nx = 1\n---\nWords.\n---\n`code` in words.\n---\nfrom os import path")
    assert [cell.cell_type for cell in book.cells] == ["markdown", "code", "markdown", "markdown", "code"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook client's own libraries
@pytest.mark.parametrize("name", SOURCES)
def test_notebook_runs_again(name: str):
    book = execute(notebook(SOURCES[name]))  # raises where a cell fails
    printed = "".join(output.get("text", "") for output in outputs(book))
    assert "the same" in printed
    assert "DIFFERENT" not in printed
    assert len([output for output in outputs(book) if "image/png" in output.get("data", {})]) == len(
        [output for output in outputs(stored(name)) if "image/png" in output.get("data", {})]
    )
