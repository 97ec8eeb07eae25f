import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from scarce_jax.cpu.workers import Workers
from scarce_jax.errors import InputError


def mapped(function, payloads, workers, ahead):
    """All results of workers that live for this call."""
    with Workers(workers) as pool:
        return list(pool.map_ordered(function, payloads, ahead))


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_with_their_ids(workers):
    def work(name, payload):
        # The earlier, the slower.
        time.sleep(0.02 * (4 - payload["k"] % 4))
        return {"id": name, "sum": payload["x"].sum(), "process": os.getpid()}

    payloads = [(f"id{k}", {"k": k, "x": np.full((3, 3), k)}) for k in range(12)]
    results = mapped(work, payloads, workers, ahead=4)
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

    with Workers(workers) as pool:
        for done, _ in enumerate(pool.map_ordered(lambda name, k: k, payloads(), ahead)):
            assert len(read) - done <= most
    assert len(read) == 20


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_the_id(workers):
    def work(name, kind):
        if kind == "input":
            raise InputError("b.png: empty")
        return 1 / kind

    with Workers(workers) as pool:
        with pytest.raises(InputError, match=r"^b\.png: empty$"):
            list(pool.map_ordered(work, [("a", 1), ("b", "input"), ("c", 1)], 2))
        with pytest.raises(RuntimeError, match="'b': ZeroDivisionError: division by zero") as caught:
            list(pool.map_ordered(work, [("a", 1), ("b", 0), ("c", 1)], 2))
        # The place in the function is told too.
        assert workers == 0 or "in work\n" in str(caught.value.__cause__)
        # What comes before the fault is still delivered, and the next call works.
        results = pool.map_ordered(work, [("a", 4), ("b", 0)], 2)
        assert next(results) == ("a", 0.25)
        with pytest.raises(RuntimeError):
            next(results)
        assert list(pool.map_ordered(work, [("a", 2)], 2)) == [("a", 0.5)]


def test_an_error_of_a_type_that_cannot_travel_is_told_all_the_same():
    def work(name, payload):
        class Odd(Exception):
            def __init__(self, one, two):
                super().__init__("odd")

        raise Odd(1, 2)

    with pytest.raises(RuntimeError, match="'a': Odd: odd"):
        mapped(work, [("a", 1)], 1, 1)


def test_a_worker_that_dies_is_told_and_replaced():
    def work(name, payload):
        if payload:
            os._exit(9)
        return payload

    with Workers(1) as pool:
        with pytest.raises(RuntimeError, match="a worker process died at 'a' .exit status 9.*fewer workers"):
            list(pool.map_ordered(work, [("a", 1)], 1))
        assert list(pool.map_ordered(work, [("a", 0)], 1)) == [("a", 0)]


def test_stopping_early_leaves_the_workers_usable():
    with Workers(2) as pool:
        results = pool.map_ordered(lambda name, k: k, ((str(k), k) for k in range(100)), 4)
        assert next(results) == ("0", 0)
        results.close()
        assert list(pool.map_ordered(lambda name, k: -k, [("a", 1)], 4)) == [("a", -1)]


def process_of(name, payload):
    print("what a task prints is no result")
    return os.getpid()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Where nobody reaps orphans, an ended one stays in the table of processes.
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_workers_live_as_long_as_the_block():
    with Workers(1) as pool:
        first, second = ([pid for _, pid in pool.map_ordered(process_of, [("a", 0)], 1)] for _ in range(2))
        assert first == second and not gone(first[0])
    assert gone(first[0])


def test_the_block_ends_in_the_middle_of_a_task():
    with Workers(1) as pool:
        pid = next(pool.map_ordered(process_of, [("a", 0)], 1))[1]
        began = time.monotonic()
        results = pool.map_ordered(lambda name, seconds: time.sleep(seconds), [("a", 0), ("b", 60)], 2)
        next(results)
    assert time.monotonic() - began < 30 and gone(pid)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="got -1"):
        Workers(-1)
    for workers in (0, 1):
        with Workers(workers) as pool, pytest.raises(ValueError, match="got 0"):
            pool.map_ordered(print, [], 0)


def test_a_script_without_a_main_guard_runs_once_and_its_workers_load_no_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        print("body")
        import jax
        jax.numpy.zeros(1).block_until_ready()
        from scarce_jax.cpu.workers import Workers
        import scarce_jax.data.images

        def resize(name, image):
            return scarce_jax.data.images.resize_label(image, (4, 4)).shape, "jax" in sys.modules

        import numpy as np
        images = [(str(k), np.zeros((9, 9), np.uint8)) for k in range(8)]
        with Workers(2) as pool:
            for name, result in pool.map_ordered(resize, images, 4):
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


# Prints the ids of its workers, then waits for what is sent to it while one of them works.
PARENT = """
import os, sys, time
from scarce_jax.cpu.workers import Workers

def work(name, seconds):
    time.sleep(seconds)
    return os.getpid()

with Workers(2) as pool:
    try:
        print(*(pid for _, pid in pool.map_ordered(work, [("a", 0.2), ("b", 0.2)], 2)), flush=True)
        print(*(pid for _, pid in pool.map_ordered(work, [("a", 60), ("b", 60)], 2)), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "last"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, ""), (signal.SIGKILL, "")]
)
def test_workers_end_with_their_parent_and_leave_signals_to_it(number, last):
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(set(workers)) == 2
    time.sleep(0.2)
    if number == signal.SIGKILL:
        process.kill()  # It alone: its workers are left to themselves.
    else:
        os.killpg(process.pid, number)
    out, errors = process.communicate(timeout=30)
    assert out.strip() == last and errors == ""
    deadline = time.monotonic() + 30
    while not all(map(gone, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_to_the_workers_alone_is_nothing_to_them():
    def work(name, payload):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return payload

    assert mapped(work, [("a", 1), ("b", 2)], 1, 2) == [("a", 1), ("b", 2)]
