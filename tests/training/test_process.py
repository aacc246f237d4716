"""What a run sets in its process is put back, however it ended."""

from __future__ import annotations

import logging

import pytest
import torch

from dl_course.training.process import log_file, threads


@pytest.mark.parametrize("deterministic", [False, True])
def test_threads_and_determinism_are_those_of_before(deterministic):
    def job():
        with threads(2):
            assert torch.get_num_threads() == 2
            torch.use_deterministic_algorithms(not deterministic)  # as Lightning's Trainer does
            raise KeyError

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(deterministic)
        with pytest.raises(KeyError):
            job()
        assert torch.get_num_threads() == 3
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def test_the_log_file_holds_what_ended_the_run_and_is_let_go(tmp_path):
    log = logging.getLogger("dl_course")

    def job():
        with log_file(tmp_path / "train.log"):
            log.info("under way")
            raise KeyError("lost")

    before = log.level, list(log.handlers)
    with pytest.raises(KeyError):
        job()
    log.warning("afterwards")
    text = (tmp_path / "train.log").read_text()
    assert "under way" in text
    assert "KeyError: 'lost'" in text
    assert "afterwards" not in text
    assert (log.level, list(log.handlers)) == before
