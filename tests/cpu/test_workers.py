import os
import pathlib
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from scarce_jax.cpu.workers import map_ordered
from scarce_jax.errors import InputError


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_with_their_ids(workers):
    def work(name, payload):
        # The earlier, the slower.
        time.sleep(0.02 * (4 - payload["k"] % 4))
        return {"id": name, "sum": payload["x"].sum(), "process": os.getpid()}

    payloads = [(f"id{k}", {"k": k, "x": np.full((3, 3), k)}) for k in range(12)]
    results = list(map_ordered(work, payloads, workers, ahead=4))
    assert [name for name, _ in results] == [name for name, _ in payloads]
    assert [(r["id"], r["sum"]) for _, r in results] == [(f"id{k}", 9 * k) for k in range(12)]
    assert (os.getpid() in {r["process"] for _, r in results}) == (workers == 0)


@pytest.mark.parametrize(("workers", "ahead", "most"), [(0, 5, 1), (2, 3, 4)])
def test_payloads_are_read_only_a_little_ahead(workers, ahead, most):
    read = []

    def payloads():
        for k in range(20):
            read.append(k)
            yield str(k), k

    for done, _ in enumerate(map_ordered(lambda name, k: k, payloads(), workers, ahead)):
        assert len(read) - done <= most
    assert len(read) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_the_id(workers):
    def work(name, kind):
        if kind == "input":
            raise InputError("b.png: empty")
        return 1 / kind

    with pytest.raises(InputError, match=r"^b\.png: empty$"):
        list(map_ordered(work, [("a", 1), ("b", "input"), ("c", 1)], workers, 2))
    with pytest.raises(RuntimeError, match="'b': ZeroDivisionError: division by zero") as caught:
        list(map_ordered(work, [("a", 1), ("b", 0), ("c", 1)], workers, 2))
    assert "ZeroDivisionError" in str(caught.value.__cause__) or isinstance(caught.value.__cause__, ZeroDivisionError)
    # What comes before the fault is still delivered, and the next call works.
    results = map_ordered(work, [("a", 4), ("b", 0)], workers, 2)
    assert next(results) == ("a", 0.25)
    with pytest.raises(RuntimeError):
        next(results)
    assert list(map_ordered(work, [("a", 2)], workers, 2)) == [("a", 0.5)]


def test_an_error_of_a_type_that_cannot_travel_is_told_all_the_same():
    def work(name, payload):
        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__("odd")

        raise Odd(1, 2)

    with pytest.raises(RuntimeError, match="'a': Odd: odd"):
        list(map_ordered(work, [("a", 1)], 1, 1))


def test_a_worker_that_dies_is_told_and_replaced():
    def work(name, payload):
        if payload:
            os._exit(9)
        return payload

    with pytest.raises(RuntimeError, match="a worker process died while 'a'.*fewer workers"):
        list(map_ordered(work, [("a", 1)], 1, 1))
    assert list(map_ordered(work, [("a", 0)], 1, 1)) == [("a", 0)]


def test_stopping_early_leaves_the_workers_usable():
    results = map_ordered(lambda name, k: k, ((str(k), k) for k in range(100)), 2, 4)
    assert next(results) == ("0", 0)
    results.close()
    assert list(map_ordered(lambda name, k: -k, [("a", 1)], 2, 4)) == [("a", -1)]


def test_workers_are_kept_between_calls():
    def process(name, payload):
        return os.getpid()

    first = {pid for _, pid in map_ordered(process, [("a", 0)], 1, 1)}
    assert {pid for _, pid in map_ordered(process, [("a", 0)], 1, 1)} == first


def test_bad_numbers_are_refused():
    for workers, ahead in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"got {workers} and {ahead}"):
            map_ordered(print, [], workers, ahead)


def test_a_script_without_a_main_guard_runs_once_and_its_workers_load_no_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        print("body")
        import jax
        jax.numpy.zeros(1).block_until_ready()
        from scarce_jax.cpu.workers import map_ordered
        import scarce_jax.data.images

        def resize(name, image):
            return scarce_jax.data.images.resize_label(image, (4, 4)).shape, "jax" in sys.modules

        import numpy as np
        images = [(str(k), np.zeros((9, 9), np.uint8)) for k in range(8)]
        for name, result in map_ordered(resize, images, 2, 4):
            print(name, result)
        """)
    )
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["body", *(f"{k} ((4, 4), False)" for k in range(8))]
    assert not any(word in process.stderr for word in ("Traceback", "Warning", "leaked")), process.stderr
