"""Work on many items by threads, in their order."""

import threading

import pytest

from internimage.threads import WAITING, map_in_order


@pytest.mark.parametrize("workers", [1, 3])
def test_the_results_come_in_the_order_of_the_items(workers):
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            first_may_end.wait(10)
        if item == 1:
            first_may_end.set()
        return item * item

    assert list(map_in_order(work, range(50), workers=workers)) == [i * i for i in range(50)]


def test_few_items_are_taken_before_their_results_are():
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = map_in_order(str, items(), workers=2)
    assert next(results) == "0"
    assert len(taken) <= 2 * WAITING + 1
    results.close()
    assert len(taken) <= 2 * WAITING + 1


def test_an_error_reaches_who_takes_the_result():
    def work(item: int) -> int:
        return 1 // (3 - item)

    results = map_in_order(work, range(9), workers=2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
