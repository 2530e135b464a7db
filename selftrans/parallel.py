"""Work in threads: reading ahead of whoever uses what is read, and batches spread over several devices."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from itertools import cycle
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Half = TypeVar("Half")

AHEAD = 2  # items that each worker is given before the results of the first are taken


def read_ahead(items: Iterable[Item], count: int = AHEAD) -> Iterator[Item]:
    """``items`` in their order, of which a thread makes ``count`` more while one is being used.

    What raises in the thread is raised here, in its place. A thread whose items are not wanted any more stops after the
    one that it is making.
    """
    made: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(count)
    left = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> None:
        while not left.is_set():
            try:
                return made.put((more, item), timeout=0.1)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(True, item)
                if left.is_set():
                    return
            put(False, None)
        except BaseException as error:  # raised again, where the items are used
            put(False, error)

    reader = threading.Thread(target=make, daemon=True)
    reader.start()
    try:
        while True:
            more, item = made.get()
            if not more:
                break
            yield item
        if item is not None:
            raise item
    finally:
        left.set()
        reader.join()


def spread(workers: Sequence[Callable[[Item], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """The results of ``items``, in their order. Each worker has a thread of its own, and gets every n-th item.

    So which worker an item comes to depends on its number alone. What a worker raises is raised here, in its place, and
    what making an item raises; those that others are at are waited for then, and no more is begun.
    """
    waiting: deque[Future[Result]] = deque()
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(max_workers=1)) for _ in workers]
        try:
            for pool, worker, item in zip(cycle(pools), cycle(workers), items, strict=False):
                if len(waiting) == AHEAD * len(workers):
                    yield waiting.popleft().result()
                waiting.append(pool.submit(worker, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def spread_in_halves(
    workers: Sequence[tuple[Callable[[Item], Half], Callable[[Half], Result]]], items: Iterable[Item]
) -> Iterator[Result]:
    """As `spread`, of work in two halves. A second thread of each worker finishes an item while it begins the next."""

    def begin(pool: Executor, first: Callable[[Item], Half], second: Callable[[Half], Result], item: Item) -> Future:
        return pool.submit(second, first(item))

    with ExitStack() as stack:
        beginners = [partial(begin, stack.enter_context(ThreadPoolExecutor(max_workers=1)), *both) for both in workers]
        for finishing in stack.enter_context(closing(spread(beginners, items))):
            yield finishing.result()
