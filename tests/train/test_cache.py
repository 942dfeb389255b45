"""Compiled programs are let go of before a process is full of them."""

import jax
import jax.numpy as jnp
import pytest

from mmfuse import train
from mmfuse.train import _cache

from ._problems import Known

needs_maps = pytest.mark.skipif(not _cache.MAPS.is_file(), reason="no /proc/self/maps here")


def _program(i):
  return jax.jit(lambda x: jnp.tanh(x + i) @ jnp.sin(x))


@needs_maps
def test_programs_take_maps_and_give_them_back(monkeypatch):
  monkeypatch.setattr(_cache, "_not_ours", 0.0)
  programs = [_program(i) for i in range(20)]
  before = _cache.used_maps()
  found = [f(jnp.ones((3, 3))) for f in programs]
  full = _cache.used_maps()
  assert full > before
  assert train.release_programs(above=full / 2)
  assert _cache.used_maps() < full
  again = [f(jnp.ones((3, 3))) for f in programs]  # compiled again, and the same
  assert all((a == b).all() for a, b in zip(found, again))


@needs_maps
def test_what_cannot_be_freed_does_not_count_again(monkeypatch):
  monkeypatch.setattr(_cache, "_not_ours", 0.0)
  monkeypatch.setattr(_cache, "used_maps", lambda: 0.4)
  assert train.release_programs() and not train.release_programs()


@needs_maps
def test_nothing_is_dropped_while_there_is_room():
  compiled = _program(0)
  compiled(jnp.ones((3, 3)))
  assert not train.release_programs(above=1.0)
  assert compiled._cache_size() == 1


def test_without_a_limit_nothing_is_dropped(monkeypatch, tmp_path):
  monkeypatch.setattr(_cache, "MAPS", tmp_path / "maps")
  assert _cache.used_maps() == 0.0 and not train.release_programs()


def test_fit_says_when_a_process_is_nearly_full(monkeypatch):
  """A loop of fits over every method would otherwise end in a crash of XLA, without a word."""
  monkeypatch.setattr(_cache, "used_maps", lambda: 0.9)
  compiled = _program(0)
  compiled(jnp.ones((3, 3)))
  with (
    pytest.warns(UserWarning, match=r"more than 80% .* call train.release_programs\(\)"),
    pytest.raises(ValueError, match="at least one run"),
  ):
    train.fit(None, None, seeds=0)
  assert compiled._cache_size() == 1  # others' programs are not its to drop


def test_fit_leaves_the_settings_of_the_process_as_they_are(monkeypatch, tmp_path):
  monkeypatch.setenv("MMFUSE_CACHE_DIR", str(tmp_path / "cache"))
  chosen, known = jax.config.jax_compilation_cache_dir, Known([0.5, 0.9])
  jax.config.update("jax_compilation_cache_dir", None)
  try:
    before = dict(jax.config.values)
    train.fit(known.method(), known.splits(), epochs=2, batch_size=4)
    assert dict(jax.config.values) == before
    assert not (tmp_path / "cache").exists()
  finally:
    jax.config.update("jax_compilation_cache_dir", chosen)
