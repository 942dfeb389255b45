"""Whatever bytes come: a table, or one sentence."""

from . import fuzz_npz

MUTANTS = 300  # 3,000: python -m tests.data.fuzz_npz 3000


def test_a_mutated_archive_is_read_or_refused(tmp_path):
  counts, faults = fuzz_npz.fuzz(MUTANTS, tmp_path)
  assert not faults, faults[0]
  assert counts["read"] + counts["refused"] == MUTANTS
  assert counts["read"] > 20 and counts["refused"] > 150  # mutants that reach the later doors too


def test_every_header_of_the_list_is_refused_or_read(tmp_path):
  files, outcomes = fuzz_npz.members(), {}
  for header in fuzz_npz.HEADERS:
    path = tmp_path / "h.npz"
    changed = {**files, "a.npy": fuzz_npz.with_header(files["a.npy"], header)}
    path.write_bytes(fuzz_npz.archive(list(changed.items())))
    outcomes[header] = fuzz_npz.outcome(path)
  sound = [h for h in fuzz_npz.HEADERS if "True, 'shape': (2, 12)" in h or "12L" in h]
  assert [h for h, said in outcomes.items() if said == "read"] == sound[1:]  # (2, 12) lacks rows


def test_mutants_are_a_function_of_their_seed():
  assert fuzz_npz.mutant(7) == fuzz_npz.mutant(7) != fuzz_npz.mutant(8)
