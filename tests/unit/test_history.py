"""A run's history: which epoch counts as its best."""

from harness.training.member import History


def test_of_equal_scores_the_first_epoch_is_the_best() -> None:
    history = History()
    for epoch, top1 in ((1, 10.0), (2, 30.0), (3, 30.0), (4, 20.0)):
        history.epoch = epoch
        history.add({"top1": top1, "loss": 1.0}, "top1", "test")
    assert history.best_epoch == 2 and history.best == {"top1": 30.0, "loss": 1.0}
    assert history.last == {"top1": 20.0, "loss": 1.0}
    assert [(e, v) for e, name, v in history.curves if name == "test_top1"] == [(1, 10), (2, 30), (3, 30), (4, 20)]
