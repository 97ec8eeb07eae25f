"""One command at a time in a run folder; what a killed one leaves goes."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from scarce_jax import mesh, runs
from scarce_jax.errors import InputError
from scarce_jax.sweep import sweep
from scarce_jax.training import lock
from scarce_jax.training.lock import held
from tests import tiny

# Its child has all its files open.
HOLDER = """
import pathlib, subprocess, sys
from scarce_jax.training.lock import held
with held(pathlib.Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run"],
        env=tiny.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.communicate()
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_told_who_holds_the_folder_and_touches_nothing(tmp_path, holder):
    run = tmp_path / "run"
    (run / ".config.json.77.aside").write_text("being written")
    before = (run / lock.NAME).read_bytes()
    message = (
        rf"^{re.escape(str(run))}: another command is training in this folder \(process {holder.pid} on "
        rf"{re.escape(socket.gethostname())} since 20\d\d-\d\d-\d\d \d\d:.*: -c {re.escape(str(run))}\); wait until"
    )
    with pytest.raises(InputError, match=message), held(run):
        pass
    assert (run / lock.NAME).read_bytes() == before
    assert {path.name for path in run.iterdir()} == {lock.NAME, ".config.json.77.aside"}
    # It still holds it.
    with pytest.raises(InputError, match=message), held(run):
        pass


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path, holder):
    holder.kill()
    holder.wait()
    began = time.monotonic()
    assert (tmp_path / "run" / lock.NAME).exists()
    with held(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / lock.NAME).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < lock.PATIENCE / 2


def test_an_ended_process_leaves_no_file(tmp_path, holder):
    holder.communicate("")
    assert holder.returncode == 0 and not (tmp_path / "run").exists()


def test_a_process_excludes_itself_too(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with held(tmp_path / "run"):
        for path in (tmp_path / "run", tmp_path / "link"):
            with pytest.raises(InputError, match=f"process {os.getpid()} on"), held(path):
                pass
        (tmp_path / "run" / "made").touch()
    with held(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["made"]


def test_train_and_sweep_hold_it_before_they_read_the_folder(tmp_path, tiny_data):
    config = tiny.supervised_config()
    with held(tmp_path / "run"):
        # It is no run folder, which is not noticed.
        (tmp_path / "run" / "config.json").write_text("no JSON")
        with pytest.raises(InputError, match="another command is training in this folder"):
            runs.train(config, tmp_path / "run", data_dir=tiny_data, redo="segmenter")
        with pytest.raises(InputError, match="another command is training in this folder"):
            sweep(config, {"seed": [0, 1]}, tmp_path / "run", data_dir=tiny_data)
        assert {path.name for path in (tmp_path / "run").iterdir()} == {lock.NAME, "config.json"}


def test_all_processes_of_a_run_are_told_what_failed_in_the_first(monkeypatch):
    gathered = []

    def gather(array):
        gathered.append(array)
        return array[None]

    def fail():
        raise InputError("held by gr\xfcn")

    monkeypatch.setattr(mesh.jax, "process_count", lambda: 2)
    monkeypatch.setattr(mesh, "gather", gather)
    monkeypatch.setattr(mesh, "barrier", lambda name: None)
    with pytest.raises(InputError, match="^held by gr\xfcn$"):
        mesh.on_primary("lock", fail)
    monkeypatch.setattr(mesh, "is_primary", lambda: False)
    monkeypatch.setattr(mesh, "gather", lambda array: gathered)
    with pytest.raises(InputError, match="^process 0: held by gr\xfcn$"):
        mesh.on_primary("lock", fail)
    monkeypatch.setattr(mesh, "gather", lambda array: array[None])
    mesh.on_primary("lock", fail)


def test_new_folders_without_content_are_removed_again(tmp_path):
    with pytest.raises(InputError, match="wrong flag"), held(tmp_path / "a" / "b"):
        raise InputError("wrong flag")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_commands_wrote_aside_is_deleted(tmp_path):
    names = (".stage.json.12.aside", ".mean.npz.abc.aside", ".lock.host.1.aside")
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".classifier.reused.aside").mkdir()
    (tmp_path / ".classifier.reused.aside" / "DONE").touch()
    target = tmp_path / "users file"
    target.touch()
    (tmp_path / ".link.aside").symlink_to(target)
    kept = {".hidden", "users file", "x.aside", ".report.html.5.aside"}
    for name in kept:
        (tmp_path / name).touch()
    with held(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == kept
    os.utime(tmp_path / ".report.html.5.aside", (0, 0))
    lock.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {".report.html.5.aside"}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "PATIENCE", 0.2)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without record locks."""

    def fail(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", fail)


def left_behind(folder, **changes):
    content = {"host": "other-host", "pid": 12, "since": "then", "command": "scarce-jax train c.py", **changes}
    (folder / lock.NAME).write_text(json.dumps(content))


def touched_for_ever(path, stopped):
    while not stopped.wait(0.02):
        os.utime(path)


@pytest.mark.parametrize("locks", [True, False])
def test_a_lock_of_another_host_counts_as_long_as_it_is_touched(tmp_path, quick, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    left_behind(tmp_path)
    stopped = threading.Event()
    thread = threading.Thread(target=touched_for_ever, args=[tmp_path / lock.NAME, stopped])
    thread.start()
    try:
        with pytest.raises(InputError, match="process 12 on other-host since then: scarce-jax train"), held(tmp_path):
            pass
    finally:
        stopped.set()
        thread.join()
    assert "other-host" in (tmp_path / lock.NAME).read_text()
    with held(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_without_record_locks_the_holder_keeps_touching_its_file(tmp_path, quick, no_locks):
    with held(tmp_path):
        path = tmp_path / lock.NAME
        before, end = path.stat().st_mtime_ns, time.monotonic() + 10
        while path.stat().st_mtime_ns == before:
            assert time.monotonic() < end
            time.sleep(0.01)
        # Another process: without what this one remembers.
        lock._HERE.clear()
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), held(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_a_file_of_its_own(tmp_path):
    run, precious = tmp_path / "run", tmp_path / "precious"
    precious.write_text("mine")
    for make in (lambda path: path.symlink_to(precious), lambda path: os.link(precious, path), os.mkfifo, os.mkdir):
        run.mkdir()
        make(run / lock.NAME)
        message = f"{run / lock.NAME}: a link, a folder or a pipe"
        with pytest.raises(InputError, match=re.escape(message)), held(run):
            pass
        shutil.rmtree(run)
    assert precious.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for run in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match=f"^{run}: the run folder cannot be written"), held(run):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_the_folder_of_another_user_is_named(tmp_path):
    code = textwrap.dedent("""
        import os, pathlib, sys
        from scarce_jax.errors import InputError
        from scarce_jax.training.lock import held
        os.setuid(65534)
        try:
            with held(pathlib.Path(sys.argv[1])):
                pass
        except InputError as error:
            print(error)
    """)
    tmp_path.chmod(0o755)
    words = [sys.executable, "-c", code, tmp_path]
    told = subprocess.run(words, env=tiny.environment(), capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"{tmp_path}: the run folder cannot be written (Permission denied)")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    run = tmp_path / os.fsdecode(b"caf\xe9") / "run"
    with pytest.raises(InputError, match=r"caf\\udce9/run: the name is not UTF-8; choose another --workdir"), held(run):
        pass
    assert list(tmp_path.iterdir()) == []
