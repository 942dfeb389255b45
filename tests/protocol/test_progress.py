"""The live line, and its plain form."""

from types import SimpleNamespace

from mmfuse.protocol._progress import Progress, duration


def test_durations_as_a_reader_wants_them():
  assert [duration(s) for s in (0.4, 89, 91, 3000, 9000)] == [
    "0 s",
    "89 s",
    "2 min",
    "50 min",
    "2.5 h",
  ]


def test_a_line_per_row_where_there_is_no_terminal(capsys):
  progress = Progress(rows=2, runs=4, epochs=3)
  progress.live = False
  with progress:
    progress.epoch(SimpleNamespace(name="joint"), None, {})
    progress.row_done(SimpleNamespace(name="joint"))
    progress.row_done(SimpleNamespace(name="mimo"), "failed")
  assert capsys.readouterr().out == (
    "joint: trained (1 of 2 rows, 0 s)\nmimo: failed (2 of 2 rows, 0 s)\n"
  )


def test_one_row_is_not_rows(capsys):
  progress = Progress(rows=1, runs=1, epochs=1)
  progress.live = False
  progress.row_done(SimpleNamespace(name="joint"))
  assert capsys.readouterr().out == "joint: trained (1 of 1 row, 0 s)\n"


def test_a_bar_on_a_terminal():
  progress = Progress(rows=1, runs=2, epochs=3)
  progress.live = True
  with progress:
    progress.epoch(
      SimpleNamespace(name="joint"),
      1,
      {
        "seed": 0,
        "learning_rate": 0.03,
        "epoch": 0,
        "epochs": 3,
        "validation": {"fused": {"accuracy": 0.5}},
      },
    )
    (task,) = progress.bar.tasks
    assert (task.completed, task.total) == (1, 6)
    assert task.description == "joint fold 1 seed 0 lr 0.03 epoch 1/3 validation 0.500"
    progress.epoch(
      SimpleNamespace(name="own"),
      None,
      {"seed": 0, "learning_rate": None, "epoch": 0, "epochs": 3, "validation": None},
    )
    assert "own seed 0 epoch 1/3" in progress.bar.tasks[0].description
