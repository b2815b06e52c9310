"""Batches respect the budget and lose nothing."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vermilion.scheduling import ahead, map_batches, pack, windows

lengths = st.lists(st.floats(0.01, 100), max_size=60)


@given(lengths, st.floats(1, 300), st.integers(1, 10))
def test_every_item_is_in_one_batch_within_the_budget(sizes, budget, most):
    batches = pack(sizes, budget, most)
    assert sorted(i for b in batches for i in b) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or max(sizes[i] for i in batch) * len(batch) <= budget


@given(lengths)
def test_results_come_back_in_order(sizes):
    assert map_batches(sizes, sizes, 50.0, lambda items: [x * 2 for x in items]) == [x * 2 for x in sizes]


@given(lengths, st.floats(0.1, 50))
def test_windows_keep_order_and_items(sizes, size):
    got = list(windows(((i, n) for i, n in enumerate(sizes)), size))
    assert [x for w in got for x in w] == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in w) >= size for w in got[:-1])


def test_items_are_produced_one_ahead_in_order():
    produced = []

    def items():
        for i in range(5):
            produced.append((i, threading.current_thread()))
            yield i

    with ahead(items()) as ready:
        assert list(ready) == [0, 1, 2, 3, 4]
    assert all(thread is not threading.current_thread() for _, thread in produced)


def test_what_the_production_raises_comes_in_its_place():
    def items():
        yield 1
        raise ValueError("the second is bad")

    with ahead(items()) as ready:
        assert next(ready) == 1
        with pytest.raises(ValueError, match="the second is bad"):
            next(ready)


def test_leaving_early_ends_the_thread_and_consumes_no_more():
    produced = []

    def items():
        for i in range(1000):
            produced.append(i)
            yield i

    with ahead(items()) as ready:
        assert next(ready) == 0
    assert len(produced) <= 4
    assert not [t for t in threading.enumerate() if t.name == "ahead"]
