"""Dependence read off the jaxpr: exact through calls, never missing any."""

import jax
import jax.numpy as jnp

from mmfuse.train._dependence import contains_primitive, dependence


def test_each_output_says_which_leaves_it_reads():
  def fn(p):
    return [
      p["a"] * 2,
      p["a"] + p["b"],
      jnp.zeros(()),
      jax.jit(lambda x, y: (y, x))(p["b"], p["c"]),
    ]

  argument = {"a": jnp.ones(()), "b": jnp.ones(()), "c": jnp.ones(())}
  assert dependence(fn, argument) == [{0}, {0, 1}, set(), ({2}, {1})]


def test_opaque_calls_depend_on_all_they_are_given():
  def scanned(p):
    return jax.lax.scan(lambda c, _: (c + p["b"], None), p["a"], None, length=2)[0]

  def custom(p):
    f = jax.custom_jvp(lambda x: jnp.sin(x))
    f.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
    return f(p["b"])

  argument = {"a": jnp.ones(()), "b": jnp.ones(())}
  assert dependence(scanned, argument) == {0, 1}
  assert dependence(custom, argument) == {1}


def test_contains_primitive_looks_inside():
  inside = jax.make_jaxpr(
    jax.jit(lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=2))
  )
  assert contains_primitive(inside(1.0), "sin")
  assert not contains_primitive(inside(1.0), "cos")
