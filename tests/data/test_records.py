import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from scarce_jax.data.records import PART, Records, decode, encode, parts_done, write_part
from scarce_jax.errors import InputError


def arrays_of(k: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(k)
    return {
        "label": rng.integers(0, 20, (5 + k % 3, 7), dtype=np.uint8),
        "confidence": rng.random((2, 3)).astype(np.float32),
    }


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.fixture
def folder(tmp_path):
    """RUN/labels/records with 150 entries in three parts."""
    folder = tmp_path / "labels" / "records"
    folder.mkdir(parents=True)
    for index in range(3):
        ks = range(index * PART, min((index + 1) * PART, 150))
        write_part(folder, index, [(f"id/{k}", arrays_of(k)) for k in ks])
    return folder


def test_arrays_survive_encoding_bit_for_bit():
    arrays = {**arrays_of(0), "empty": np.zeros((0, 4), np.int64), "scalar": np.float64(np.nan)}
    assert_equal(decode(encode(arrays)), {k: np.asarray(v) for k, v in arrays.items()})
    assert encode(arrays) == encode(arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        encode({"x": np.array([object()])})


def test_every_flipped_byte_is_noticed():
    data = encode(arrays_of(0))
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(ValueError, match="checksum"):
            decode(bytes(damaged))
    for damaged in (data[:-1], b"", bytes(4), bytes(100)):
        with pytest.raises(ValueError, match="checksum"):
            decode(damaged)


def test_random_access_by_id(folder):
    records = Records(folder)
    assert len(records) == len(records.ids) == 150
    assert list(records.ids) == [f"id/{k}" for k in range(150)]
    for k in (149, 0, 64, 63, 100):
        assert_equal(records.read(f"id/{k}"), arrays_of(k))
    assert "id/0" in records.ids and "id/150" not in records.ids
    with pytest.raises(InputError, match="no entry for 'id/150' among 150.*--redo labels"):
        records.read("id/150")
    assert_equal(pickle.loads(pickle.dumps(records)).read("id/7"), arrays_of(7))


def test_parts_done_counts_whole_parts_and_clears_leftovers(folder):
    assert parts_done(folder) == {0, 1, 2}
    assert parts_done(folder.parent / "none") == set()
    leftover = folder / ".part-00003.arrayrecord.123.aside"
    leftover.write_bytes(b"half")
    other = folder / "notes.txt"
    other.write_text("mine")
    assert len(Records(folder)) == 150
    assert parts_done(folder) == {0, 1, 2}
    assert not leftover.exists() and other.exists()


def test_a_failed_write_leaves_nothing(folder):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_part(folder, 3, [("a", arrays_of(0)), ("b", {"x": np.array([object()])})])
    assert sorted(p.name for p in folder.iterdir()) == [f"part-{k:05d}.arrayrecord" for k in range(3)]
    for entries in ([], [(str(k), {}) for k in range(PART + 1)]):
        with pytest.raises(ValueError, match=f"1 to {PART} entries, got {len(entries)}"):
            write_part(folder, 3, entries)


def test_a_part_killed_while_written_is_not_there(tmp_path):
    script = f"""
        import numpy as np
        from scarce_jax.data.records import write_part
        class Slow(dict):
            def items(self):
                print("writing", flush=True)
                import time; time.sleep(60)
        write_part({str(tmp_path)!r}, 0, [("a", {{"x": np.zeros(9)}}), ("b", Slow())])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert parts_done(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []
    write_part(tmp_path, 0, [("a", arrays_of(0))])
    assert parts_done(tmp_path) == {0}


def test_a_part_written_again_replaces_the_old_one(folder):
    write_part(folder, 2, [("new", arrays_of(1))])
    records = Records(folder)
    assert len(records) == 2 * PART + 1
    assert_equal(records.read("new"), arrays_of(1))


def test_repeated_ids_are_refused_with_counts(folder):
    write_part(folder, 3, [("id/0", arrays_of(0)), ("id/70", arrays_of(0)), ("id/70", arrays_of(0))])
    with pytest.raises(InputError, match=r"2 ids.*id/0 \(2 times\), id/70 \(3 times\).*--redo labels"):
        Records(folder)


def test_completeness(folder):
    records = Records(folder)
    expected = [f"id/{k}" for k in range(150)]
    records.check_complete(reversed(expected))
    with pytest.raises(InputError, match=r"151 entries expected, found 150: 1 missing \('x'\).*--redo labels"):
        records.check_complete([*expected, "x"])
    with pytest.raises(InputError, match=r"10 missing \('new0', .*\.\.\.\), 1 not expected \('id/0'\)"):
        records.check_complete([*expected[1:], *(f"new{k}" for k in range(10))])


def test_a_damaged_entry_is_named_and_its_neighbours_stay_readable(tmp_path):
    folder = tmp_path / "labels" / "records"
    folder.mkdir(parents=True)
    # Noise does not compress, so that its bytes can be found in the file.
    noise = {f"id{k}": {"x": np.random.default_rng(k).integers(0, 256, 30000, np.uint8)} for k in range(4)}
    path = write_part(folder, 0, list(noise.items()))
    data = bytearray(path.read_bytes())
    position = data.find(noise["id2"]["x"].tobytes()[1000:1100])
    assert position > 0
    data[position] ^= 1
    path.write_bytes(data)
    records = Records(folder)
    for name in ("id0", "id1", "id3"):
        assert_equal(records.read(name), noise[name])
    with pytest.raises(InputError, match=r"part-00000\.arrayrecord: the entry of 'id2' is damaged.*--redo labels"):
        records.read("id2")


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5])
def test_a_cut_off_part_is_named(folder, keep):
    path = folder / "part-00001.arrayrecord"
    size = path.stat().st_size
    os.truncate(path, keep if isinstance(keep, int) else int(size * keep))
    with pytest.raises(InputError, match=r"part-00001\.arrayrecord: the list of ids is damaged.*--redo labels"):
        Records(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="labels/records: no records.*--redo labels"):
        Records(tmp_path / "labels" / "records")


def test_many_parts_need_no_open_files(tmp_path):
    for index in range(30):
        write_part(tmp_path, index, [(f"{index}", arrays_of(index))])
    records = Records(tmp_path)
    for index in range(30):
        assert_equal(records.read(f"{index}"), arrays_of(index))
    handles = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(handle) for handle in handles if os.path.lexists(handle)]
    assert not [target for target in targets if target.startswith(str(tmp_path))]


def test_entries_are_compressed_and_each_has_its_own_shape(tmp_path):
    entries = [(str(k), {"maps": np.full((64 + k, 300 - k), k, np.float32)}) for k in range(PART)]
    path = write_part(tmp_path, 0, entries)
    assert path.stat().st_size < sum(arrays["maps"].nbytes for _, arrays in entries) / 10
    records = Records(tmp_path)
    for example_id, arrays in entries:
        assert_equal(records.read(example_id), arrays)
