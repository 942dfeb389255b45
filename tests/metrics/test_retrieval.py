"""Retrieval: rankings against brute force, chance against random orders, what takes no part."""

import numpy as np
import pytest

from mmfuse import data, metrics
from mmfuse.core import Outputs, Unavailable

RNG = np.random.default_rng(0)


def brute_force(similarity, relevant, k, divisor):
  found = []
  for s, r in zip(similarity, relevant):
    order = sorted(range(len(s)), key=lambda i: (-s[i], i))[:k]
    hits, total = 0, 0.0
    for rank, i in enumerate(order, 1):
      hits += r[i]
      total += r[i] * hits / rank
    n = hits if divisor == "found" else min(k, r.sum())
    found.append(total / max(n, 1))
  return found


@pytest.mark.parametrize("divisor", ["found", "all"])
@pytest.mark.parametrize("k", [1, 3, 50])
def test_average_precision_is_that_of_brute_force_with_ties(k, divisor):
  similarity = RNG.integers(0, 3, (6, 11)).astype(float)
  relevant = RNG.random((6, 11)) < 0.3
  relevant[2] = False  # a query without a relevant row
  found = metrics.average_precision_at_k(similarity, relevant, k, divisor)
  np.testing.assert_allclose(found, brute_force(similarity, relevant, k, divisor))
  assert found[2] == 0
  with pytest.raises(ValueError, match="divisor must be one of: found, all, got 'half'"):
    metrics.average_precision_at_k(similarity, relevant, k, "half")


def test_relevant_is_the_same_class_or_a_label_in_common():
  assert metrics.relevance(np.asarray([0, 1]), np.asarray([1, 1, 0])).tolist() == [
    [False, False, True],
    [True, True, False],
  ]
  many = metrics.relevance(np.asarray([[1, 0], [0, 0]]), np.asarray([[1, 1], [0, 1]]))
  assert many.tolist() == [[True, False], [False, False]]
  assert metrics.relevant_rows(np.asarray([0, 1]), np.asarray([1, 1, 0])).tolist() == [1, 2]


@pytest.mark.parametrize("bits", [1, 5, 16, 24, 32, 96, 300])
def test_packed_ranking_is_that_of_the_bits(bits):
  query, database = (RNG.integers(0, 2, (n, bits)) for n in (7, 40))
  packed = metrics.pack_bits(query), metrics.pack_bits(2 * database - 1)  # +-1 alike
  distance = (query[:, None] != database[None]).sum(-1)
  np.testing.assert_array_equal(metrics.hamming_distances(*packed), distance)
  order = [sorted(range(40), key=lambda i: (d[i], i)) for d in distance]
  np.testing.assert_array_equal(metrics.hamming_ranking(*packed), order)
  assert packed[1].nbytes == 40 * -(-bits // 8)  # a bit a bit: 1/32 of float32


def test_codes_are_checked():
  with pytest.raises(ValueError, match=r"codes are \[N, L\] of at least one bit, got \[3, 0\]"):
    metrics.pack_bits(np.zeros((3, 0)))
  packed = metrics.pack_bits(np.ones((2, 16))), metrics.pack_bits(np.ones((2, 32)))
  with pytest.raises(ValueError, match=r"packed alike .* uint16 \[2, 1\] and uint32 \[2, 1\]"):
    metrics.hamming_distances(*packed)


@pytest.mark.parametrize("divisor", ["found", "all"])
def test_chance_is_the_mean_over_random_orders(divisor):
  total, size = np.asarray([0, 1, 4, 12]), 12
  hits = np.stack(
    [[RNG.permutation(np.arange(size) < r) for r in total] for _ in range(6000)], 1
  )  # [Q, orders, D]
  for k in (1, 3, 12, None):
    want = [
      metrics.average_precision_of_hits(h, np.full(len(h), r), k, divisor).mean()
      for h, r in zip(hits, total)
    ]
    np.testing.assert_allclose(metrics.chance_at_k(total, size, k, divisor), want, atol=0.012)
  # The page: mAP@50 of a random order of digit_pairs, 2,000 rows of ten classes, is .16.
  assert metrics.chance_at_k(np.asarray([200]), 2000, 50)[0] == pytest.approx(0.164, abs=0.001)


def test_precision_at_recall_by_hand():
  hits = np.asarray([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
  found = dict(zip(metrics.RECALL, metrics.precision_at_recall(hits)))
  assert found[0.0] == pytest.approx((1 + 0 + 1 / 2) / 3)
  assert found[0.5] == pytest.approx((1 + 0 + 1 / 2) / 3)
  assert found[0.55] == found[1.0] == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)


def parts(label, rows=12, **changes):
  """Queries and database of three modalities."""
  index = np.arange(rows)
  given = {m: np.ones(rows, bool) for m in "abc"}
  part = data.Split({}, label, given, index)
  return {"query": part, "database": part.replace(**changes)}


def same(x):
  """What both parts say."""
  return dict.fromkeys(("query", "database"), x)


def test_every_direction_by_codes_or_by_features():
  label = np.arange(12) % 3
  ideal = np.eye(3)[label]
  codes = {m: ideal.astype(np.int8) for m in "abc"}
  outputs = Outputs(None, features={m: RNG.normal(size=(12, 4)) for m in "abc"})
  collected = metrics.map_at_k(5)
  found = collected.compute(same(outputs._replace(aux={"codes": codes})), parts(label))
  assert len(found) == 2 * (1 + 6) and set(found.values()) == {1.0}
  found = collected.compute(same(outputs), parts(label))
  assert 0.1 < found["map_at_5"] < 0.9 and found["map_at_5"] == pytest.approx(
    np.mean([v for k, v in found.items() if k.startswith("map_at_5/")])
  )
  swapped = {**codes, "a": codes["a"][:, [1, 2, 0]]}  # a alone does not fit
  found = collected.compute(same(outputs._replace(aux={"codes": swapped})), parts(label))
  assert found["map_at_5/b->c"] == 1.0 and found["map_at_5/a->b"] < 0.7
  curves = collected.curves(same(outputs._replace(aux={"codes": codes})), parts(label))
  assert set(curves) == {"a->b", "a->c", "b->a", "b->c", "c->a", "c->b"}
  assert set(curves["a->b"]) == {1.0}


def test_a_long_database_is_ranked_in_pieces(monkeypatch):
  label = RNG.integers(0, 3, 12)
  outputs = Outputs(None, features={m: RNG.normal(size=(12, 4)) for m in "abc"})
  collected = metrics.map_at_k(5)
  judged = lambda: (
    collected.compute(same(outputs), parts(label)),
    collected.curves(same(outputs), parts(label)),
    collected.chance(parts(label)),
  )
  whole = judged()
  monkeypatch.setattr("mmfuse.metrics._retrieval._CELLS", 30)
  for a, b in zip(whole, judged()):
    assert a.keys() == b.keys() and all(a[k] == pytest.approx(b[k]) for k in a)


def test_rows_that_do_not_count_are_as_if_they_were_not_there():
  label, index = np.arange(12) % 3, np.arange(12)
  features = {m: RNG.normal(size=(12, 4)) for m in "abc"}
  there = index >= 4
  few = lambda x: x[there]
  collected = metrics.map_at_k(3)
  changes = {
    "mask": {"mask": dict.fromkeys("abc", there)},
    "labelled": {"labelled": there},
    "weight": {"weight": there.astype(np.float32)},
  }
  whole = {
    "query": parts(label)["query"],
    "database": data.Split({}, few(label), {m: few(there) for m in "abc"}, few(index)),
  }
  answers = {
    "query": Outputs(None, features=features),
    "database": Outputs(None, features={m: few(x) for m, x in features.items()}),
  }
  want, chance = collected.compute(answers, whole), collected.chance(whole)
  for name, change in changes.items():
    given = parts(label, **change)
    assert collected.compute(same(answers["query"]), given) == want, name
    assert collected.chance(given) == chance, name


def test_a_modality_that_no_query_has_is_in_no_direction():
  label, none = np.arange(12) % 3, np.zeros(12, bool)
  given = parts(label)
  given["query"] = given["query"].replace(mask={**given["query"].mask, "b": none})
  assert [d.name for d in metrics.directions(given)] == ["a->b", "a->c", "c->a", "c->b"]
  alone = {m: np.full(12, m == "a") for m in "abc"}
  given = {p: part.replace(mask=alone) for p, part in given.items()}
  with pytest.raises(Unavailable, match="no query has a modality of which the database has"):
    metrics.directions(given)


@pytest.mark.parametrize(
  ("outputs", "said"),
  [
    (Outputs(np.zeros((12, 3))), "it gives no features of its modalities"),
    (Outputs(None, features={"a": np.ones((12, 2))}), "it gives no features of its modalities"),
    (
      Outputs(None, features={"a": np.ones((12, 2)), "b": np.ones((12, 3))}),
      r"different widths \(a 2, b 3\)",
    ),
  ],
)
def test_what_cannot_be_compared_is_said(outputs, said):
  with pytest.raises(Unavailable, match=said):
    metrics.map_at_k().compute(same(outputs), parts(np.arange(12) % 3))


def test_what_is_not_finite_has_no_score_and_what_makes_no_sense_is_refused():
  outputs = Outputs(None, features={m: np.full((12, 2), np.nan) for m in "abc"})
  found = metrics.map_at_k().compute(same(outputs), parts(np.arange(12) % 3))
  assert np.isnan(list(found.values())).all()
  with pytest.raises(Unavailable, match="judged by labels, and there are none"):
    metrics.directions(parts(None))
  with pytest.raises(ValueError, match="k must be at least 1"):
    metrics.map_at_k(0)
  with pytest.raises(ValueError, match="divisor must be one of"):
    metrics.map_at_k(5, "half")
