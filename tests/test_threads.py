"""Batches side by side: order, errors, and the number of threads left as it was."""

import os
import threading

import pytest
import torch

from mogul import EM, GaussianMixture, fit, initialise
from mogul.compute.threads import limit_threads, spread, usable_cores
from mogul.data import ArraySource


def test_items_go_round_in_order() -> None:
    seen: list[list[int]] = [[], [], []]
    spread(range(20), [part.append for part in seen])
    assert seen == [list(range(i, 20, 3)) for i in range(3)]


def test_workers_run_on_threads_of_their_own_with_one_torch_thread_each() -> None:
    before = torch.get_num_threads()
    names, counts = set(), set()

    def work(_: int) -> None:
        names.add(threading.current_thread().name)
        counts.add(torch.get_num_threads())

    try:
        torch.set_num_threads(2)
        spread(range(8), [work, work])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(names) == 2
    assert counts == {1}


def test_a_worker_that_spreads_works_alone() -> None:
    seen: list[list[int]] = [[], []]

    def work(item: int) -> None:
        parts: list[list[int]] = [[], []]
        spread(range(10 * item, 10 * item + 4), [part.append for part in parts])
        seen[item % 2] += parts[0] + parts[1]

    spread(range(4), [work, work])
    assert seen == [[0, 2, 1, 3, 20, 22, 21, 23], [10, 12, 11, 13, 30, 32, 31, 33]]


def test_a_child_process_has_threads_of_its_own() -> None:
    spread(range(4), [lambda _: None] * 2)
    child = os.fork()
    if child == 0:  # would wait for ever on threads that only the parent has
        done: list[int] = []
        spread(range(4), [done.append] * 2)
        os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_workers_record_gradients_only_if_the_caller_does() -> None:
    seen = set()
    with torch.no_grad():
        spread(range(4), [lambda _: seen.add(torch.is_grad_enabled())] * 2)
    assert seen == {False}


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    before = torch.get_num_threads()

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        spread(range(100), [work, work])
    assert torch.get_num_threads() == before


def test_threads_are_lowered_to_the_usable_cores_and_never_raised() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(usable_cores() + 5)
        limit_threads()
        assert torch.get_num_threads() == usable_cores()
        torch.set_num_threads(1)
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_fit_does_not_depend_on_the_number_of_threads(gaps: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=generator, dtype=torch.float64)
    x[:1000] += 4
    if gaps:
        x[torch.rand(x.shape, generator=generator) < 0.1] = torch.nan
    before, reached = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            model = GaussianMixture(3, 6, "factor-analysis", 2, dtype=torch.float64)
            initialise(model, ArraySource(x))
            fitted = fit(model, ArraySource(x), EM(), passes=5, tolerance=0.0)
            reached.append(fitted.history[-1]["log_likelihood"])
    finally:
        torch.set_num_threads(before)
    assert reached[0] == pytest.approx(reached[1], abs=1e-10)


def test_concurrent_callers_keep_their_own_number_of_threads() -> None:
    before, seen = torch.get_num_threads(), {}
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        torch.set_num_threads(3)
        assert torch.get_num_threads() == 3
        inside.wait()
        spread(range(4), [lambda _: done.wait(5)] * 2)
        seen["other"] = torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        thread = threading.Thread(target=other)
        thread.start()
        spread(range(4), [lambda _: inside.set()] * 2)
        seen["main"] = torch.get_num_threads()
        done.set()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == {"main": 2, "other": 3}


def test_float32_sums_depend_on_threads_by_rounding_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6000, 30, generator=generator)
    x[:2000] += 2
    before, reached = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            model = GaussianMixture(6, 30, "ppca", 3)
            initialise(model, ArraySource(x))
            fitted = fit(model, ArraySource(x), EM(), passes=5, tolerance=0.0)
            reached.append(fitted.history[-1]["log_likelihood"])
    finally:
        torch.set_num_threads(before)
    assert reached[0] == pytest.approx(reached[1], abs=2e-6)
