"""A house with one small fake study, written to a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

FAKE = '''
"""A fake study: is `value` above one half? It exists to test the runner."""

from experiments.study import Study
from experiments.style import panels


def measure(quick, value={value}):
    {body}
    return {{"value": value, "quick": quick, "curves": {{"object": object()}}}}


def figure(measured):
    assert "object" in measured["curves"]
    fig, (axes,) = panels()
    axes.plot([0, measured["value"]])
    return fig


STUDY = Study(
    id="{id}",
    source="nowhere",
    claim="The value is large.",
    criterion="value > 0.5 | strictly",
    measure=measure,
    holds=lambda found: found["value"] > 0.5,
    control={{"value": {control}}},
    control_note="another value",
    table=lambda found: [["name", "number"], ["[value]", found["value"]]],
    summary=lambda found: f"value {{found['value']}}",
    figure=figure,
    seeds=range(3),
)
'''


@pytest.fixture
def house(tmp_path: Path):
    """build(room/claim, value, control, body) writes a study; returns the folder that `main` takes as its home."""
    home = tmp_path / "experiments"
    home.mkdir()

    def build(id: str = "room/big-value", value: float = 0.9, control: float = 0.1, body: str = "pass") -> Path:
        path = home / (id.replace("-", "_") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE.format(id=id, value=value, control=control, body=body), encoding="utf-8")
        return home

    return build
