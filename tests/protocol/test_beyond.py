"""The parts "ood" and "shifted": sealed until the report, then a field of every record."""

import numpy as np
import pytest

from mmfuse import data, protocol, report, train

from ._helpers import arrays, quick


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
  """(the record of two networks, the splits that were trained on, those of the report)."""
  given = arrays()
  given["split"] = np.where(np.arange(80) % 8 == 5, "ood", given["split"]).astype("<U10")
  given["split"][np.arange(80) % 8 == 3] = "shifted"
  given["truth_kind"] = np.arange(80) // 40
  table = data.table_from_arrays(given)
  folder, seen, fit = tmp_path_factory.mktemp("beyond") / "run", [], train.fit

  def watched(method, splits, **options):
    seen.append(splits)
    return fit(method, splits, **options)

  with pytest.MonkeyPatch.context() as patch:
    quick(patch)
    patch.setattr(train, "fit", watched)
    protocol.run(
      protocol.Compare(
        methods=("deep_ensemble",),
        set=("deep_ensemble.members=2",),
        encoder=("a=linear", "b=linear"),
        out=str(folder),
        tune=1,
        seeds=1,
        epochs=1,
        batch_size=16,
      ),
      table=table,
    )
  return report.read_jsonl(folder / "results.jsonl"), seen, table.splits()


def test_nothing_but_the_report_sees_them(ran):
  _, seen, splits = ran
  assert seen and all(set(s.parts) == {"train", "validation"} for s in seen)
  assert {"ood", "shifted", "test"} < set(splits.parts)


def test_a_record_has_their_scores_of_each_kind_and_of_an_ensemble_its_disagreement(ran):
  (ensemble,) = (r["parts"] for r in ran[0])
  plain = {"ood_auroc", "shifted_accuracy", "shifted_nll", "shifted_ece"}
  kinds = {f"{name}/{k}" for name in plain for k in (0, 1)}
  assert plain | kinds <= set(ensemble)
  of_members = {"disagreement", "member_accuracy"}
  for name in of_members:
    assert {name, f"{name}/0", f"shifted_{name}", f"shifted_{name}/1"} <= set(ensemble)
  assert all(np.isfinite(v) for v in ensemble.values())
