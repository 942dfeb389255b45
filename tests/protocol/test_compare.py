"""The whole comparison, end to end, on tiny data."""

def test_it(finished):
  print(finished.said)
  assert finished.said.code == 0
