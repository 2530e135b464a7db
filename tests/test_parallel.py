"""Threads that read ahead, and that share work: order, errors, and what happens when nobody wants the rest."""

import threading
import time

import pytest

from selftrans.parallel import AHEAD, read_ahead, spread, spread_in_halves


def test_items_come_in_their_order():
    assert list(read_ahead(range(20))) == list(range(20))
    assert list(read_ahead([])) == []


def test_a_few_items_are_made_before_they_are_asked_for():
    made = []
    items = read_ahead((made.append(number) or number for number in range(20)), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3, 4]  # one in use, three that wait, one in the hand of the thread
    assert list(items) == list(range(1, 20))


def test_what_reading_raises_comes_after_what_was_read():
    def broken():
        yield 1
        raise ValueError("damaged")

    items = read_ahead(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(items)


def threads():
    return [thread for thread in threading.enumerate() if thread is not threading.current_thread()]


def test_no_thread_outlives_who_leaves_early():
    before = threads()
    items = read_ahead(iter(range(1000)))
    next(items)
    items.close()
    results = spread([abs, abs], read_ahead(iter(range(1000))))
    next(results)
    results.close()
    results = spread_in_halves([(abs, abs), (abs, abs)], read_ahead(iter(range(1000))))
    next(results)
    results.close()
    assert threads() == before


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_their_items(workers):
    """The first worker is the slowest."""

    def work(pause):
        return lambda item: (time.sleep(pause), item * item)[1]

    found = spread([work(0.01 / (1 + number)) for number in range(workers)], range(20))
    assert list(found) == [item * item for item in range(20)]


def test_workers_work_at_the_same_time_on_every_nth_item():
    meet = threading.Barrier(2, timeout=10)
    seen = [[], []]

    def work(number):
        def worker(item):
            meet.wait()  # until the other is at work too
            seen[number].append((item, threading.get_ident()))
            return item

        return worker

    assert list(spread([work(0), work(1)], range(8))) == list(range(8))
    assert [[item for item, _ in items] for items in seen] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert len({thread for items in seen for _, thread in items}) == 2


def test_an_error_comes_in_its_place_and_no_more_is_begun():
    begun = []

    def worker(item):
        begun.append(item)
        if item == 3:
            raise ValueError("broken")
        return item

    results = spread([worker], range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)
    assert len(begun) <= 4 + AHEAD


def test_one_item_is_finished_while_the_next_is_begun():
    meet = threading.Barrier(2, timeout=10)

    def begin(item):
        if item > 0:
            meet.wait()  # until the item before is being finished
        return item

    def finish(item):
        if item < 7:
            meet.wait()
        return item * item

    assert list(spread_in_halves([(begin, finish)], range(8))) == [item * item for item in range(8)]


@pytest.mark.parametrize("half", [0, 1])
def test_an_error_in_either_half_comes_in_its_place(half):
    def broken(item):
        if item == 3:
            raise ValueError("broken")
        return item

    halves = [abs, abs]
    halves[half] = broken
    results = spread_in_halves([tuple(halves)], range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(results)
