"""Files that cannot be written: each is named, and nothing is left half-written."""

import json
import os
import resource

import jax
import numpy as np
import pytest

from scarce_jax import config_files
from scarce_jax.data.files import as_os_error, discard_asides, naming, write_atomically, write_json
from scarce_jax.data.records import write_part
from scarce_jax.training.log import MetricsLog


@pytest.fixture
def small_files():
    """No file may have more than 4 KiB, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_be_written_is_named_and_closes(tmp_path, small_files):
    log = MetricsLog(tmp_path, "stage", 0, 0)
    with pytest.raises(OSError) as caught:
        for step in range(1, 1000):
            log.write(step, "train", {"loss": 0.5})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
    log.close()
    # A later run goes on from the complete lines.
    log = MetricsLog(tmp_path, "stage", 10, 0)
    log.write(11, "train", {"loss": 0.5})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 12))


def test_the_events_of_the_log_are_those_of_its_lines(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    log = MetricsLog(tmp_path, "stage", 5, 100)
    log.write(6, "train", {"loss": 0.5, "eval": "name"})
    (path,) = tmp_path.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        # Length, its checksum, the event, its checksum.
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    log.close()
    assert [event.step for event in events] == [0, 106, 106, 106]
    assert events[2].session_log.status == 1
    assert [(value.tag, value.simple_value) for value in events[3].summary.value] == [("stage/train/loss", 0.5)]


def test_records_that_cannot_be_written_are_named_and_leave_nothing(tmp_path, small_files):
    noise = np.random.default_rng(0).integers(0, 255, 100_000, np.uint8)
    with pytest.raises(OSError, match="File too large") as caught:
        write_part(tmp_path, 0, [("a", {"x": noise})])
    assert caught.value.filename == str(tmp_path / "part-00000.arrayrecord") and list(tmp_path.iterdir()) == []


def test_errors_name_the_file_that_was_to_be_written(tmp_path, small_files):
    long, short = tmp_path / ("x" * 300), tmp_path / "a.json"
    for path, size, fault in ((short, 5000, "File too large"), (long, 1, "File name too long")):
        with pytest.raises(OSError, match=fault) as caught:
            write_json(path, ["x" * size])
        assert caught.value.filename == str(path)
    with pytest.raises(OSError) as caught, write_atomically(tmp_path / "none" / "a") as aside:
        aside.write_text("x")
    assert caught.value.filename == str(tmp_path / "none" / "a")
    with pytest.raises(KeyError), naming("a"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_once_and_not_used(tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    told = []
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(config_files.log, "warning", lambda text, *values: told.append(text % values))
    before = jax.config.jax_compilation_cache_dir
    config_files.use_compilation_cache()
    assert told == [f"{tmp_path}/cache/scarce_jax/xla: compiled programs are not stored there (Not a directory)"]
    assert jax.config.jax_compilation_cache_dir == before


def test_what_a_killed_write_left_goes_once_it_is_old(tmp_path):
    old, young, other = (tmp_path / name for name in (".a[1].html.7.aside", ".a[1].html.8.aside", ".b.html.7.aside"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    discard_asides(tmp_path / "a[1].html")
    assert set(tmp_path.iterdir()) == {young, other}


def test_the_text_of_another_library_becomes_an_error_of_the_file_system():
    error = as_os_error(RuntimeError("write() failed: No space left on device; writing /a; at byte 16384"))
    assert isinstance(error, OSError) and error.errno == 28
    bug = RuntimeError("dictionary changed size during iteration")
    assert as_os_error(bug) is bug
