"""What a continuation may not do to a run."""

from __future__ import annotations

import pytest

import dl_course as dl
from dl_course.errors import ConfigError


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("trainer.max_epochs=1", "trainer.max_epochs=1, but 2 are behind it already"),
        ("trainer.max_steps=7", "trainer.max_steps=7, but 20 are behind it already"),
        ("trainer.max_epochs=2", None),
    ],
)
def test_a_run_cannot_be_shortened_and_stays_as_it_is(limit, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DL_COURSE_QUIET", "1")
    run = dl.train(dl.compose("mlp_moons", ["trainer.max_epochs=2", "callbacks.progress=false"])).path
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    overrides = [f"resume={run}", limit]
    if reason is None:
        dl.train(dl.compose("mlp_moons", overrides), overrides=overrides)
    else:
        with pytest.raises(ConfigError, match=reason):
            dl.train(dl.compose("mlp_moons", overrides), overrides=overrides)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
