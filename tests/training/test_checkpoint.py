"""Checkpoints: what is loaded is what was saved, or the damage is named."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scarce_jax import mesh as mesh_lib
from scarce_jax.training.checkpoint import (
    Checkpoints,
    DamagedCheckpoint,
    load,
    remove_unfinished,
    replicated_like,
    save_async,
)


@pytest.fixture
def mesh():
    return mesh_lib.make_mesh(jax.devices()[:1])


def tree(mesh, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "step": np.int32(7),
        "nets": {
            "a": {"kernel": rng.normal(size=(5, 4, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)},
            "b": {"scale": rng.normal(size=(17,)).astype(np.float32), "half": jnp.ones((4,), jnp.bfloat16)},
        },
        "empty": {},
    }
    return jax.device_put(arrays, mesh_lib.replicated(mesh))


def equal(a, b):
    return all(
        np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_round_trip(tmp_path, mesh):
    saved = tree(mesh)
    save_async(tmp_path / "x", saved).result()
    loaded = load(tmp_path / "x", replicated_like(saved, mesh))
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    assert equal(loaded, saved)


def test_another_number_of_devices(tmp_path, mesh):
    saved = tree(mesh)
    save_async(tmp_path / "x", saved).result()
    eight = mesh_lib.make_mesh(jax.devices()[:8])
    loaded = load(tmp_path / "x", replicated_like(saved, eight))
    assert equal(loaded, saved)
    assert len(loaded["nets"]["a"]["kernel"].sharding.device_set) == 8


def test_every_flipped_bit_is_named_or_harmless(tmp_path, mesh):
    saved = tree(mesh)
    whole = tmp_path / "whole"
    save_async(whole, saved).result()
    files = [p for p in sorted(whole.rglob("*")) if p.is_file() and p.stat().st_size]
    positions = [(p, i) for p in files for i in range(p.stat().st_size)]
    draw = random.Random(0)
    detected = harmless = 0
    for _ in range(200):
        damaged = tmp_path / "damaged"
        shutil.copytree(whole, damaged)
        path, offset = draw.choice(positions)
        target = damaged / path.relative_to(whole)
        content = bytearray(target.read_bytes())
        content[offset] ^= 1 << draw.randrange(8)
        target.write_bytes(content)
        try:
            assert equal(load(damaged, replicated_like(saved, mesh)), saved), f"silent damage in {target} at {offset}"
            harmless += 1
        except DamagedCheckpoint as error:
            assert str(damaged) in str(error)
            detected += 1
        shutil.rmtree(damaged)
    assert detected + harmless == 200
    assert detected > 20  # Orbax alone detects hardly any in the data files.


def test_flip_in_array_data_names_the_array(tmp_path, mesh):
    """The checksum itself, not Orbax, finds a changed value."""
    saved = {"kernel": jax.device_put(np.arange(4096, dtype=np.float32), mesh_lib.replicated(mesh))}
    save_async(tmp_path / "x", saved).result()
    other = {"kernel": saved["kernel"].at[100].add(1)}
    save_async(tmp_path / "y", other).result()
    shutil.rmtree(tmp_path / "x" / "state")
    shutil.copytree(tmp_path / "y" / "state", tmp_path / "x" / "state")
    with pytest.raises(DamagedCheckpoint, match="kernel is not what was saved"):
        load(tmp_path / "x", replicated_like(saved, mesh))


def test_missing_folder_is_damage(tmp_path, mesh):
    with pytest.raises(DamagedCheckpoint, match="nowhere"):
        load(tmp_path / "nowhere", replicated_like(tree(mesh), mesh))


def test_other_shape_names_the_array(tmp_path, mesh):
    save_async(tmp_path / "x", {"kernel": jnp.zeros((3, 3))}).result()
    with pytest.raises(DamagedCheckpoint, match=r"kernel has shape \[3, 3\], expected \[3, 4\]"):
        load(tmp_path / "x", replicated_like({"kernel": jnp.zeros((3, 4))}, mesh))


def test_newest_two_are_kept_and_a_damaged_one_is_passed_over(tmp_path, mesh, caplog):
    kept = Checkpoints(tmp_path / "c")
    for step in (1, 2, 3, 4):
        kept.save(step, tree(mesh, step))
    kept.wait()
    assert kept.steps() == [4, 3]
    for path in (tmp_path / "c" / "4").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(b"\0" * path.stat().st_size)
    step, loaded = Checkpoints(tmp_path / "c").load_newest(replicated_like(tree(mesh), mesh))
    assert step == 3
    assert equal(loaded, tree(mesh, 3))
    assert str(tmp_path / "c" / "4") in caplog.text
    assert kept.steps() == [3]


def test_unfinished_saves_are_removed(tmp_path, mesh):
    kept = Checkpoints(tmp_path / "c")
    kept.save(1, tree(mesh))
    kept.wait()
    (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "c" / ".deleted-0-1").mkdir()
    remove_unfinished(tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["1"]
