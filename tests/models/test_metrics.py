"""Metrics: the published numbers, small cases by hand, and bad input."""

import numpy as np
import pytest
import torch
from exit_data import INDEX, arrays
from torch.testing import assert_close

from adafocus_models import average_precision, mean_average_precision, top_k_accuracy

NAN = float("nan")


@pytest.mark.parametrize("case", INDEX["metrics"])
def test_metrics_are_the_published_ones(case):
    data = arrays("metrics", case)
    scores, labels = data["scores"], data["labels"]
    assert 100 * top_k_accuracy(scores, labels[:, 0]) == pytest.approx(data["top1"].item())
    assert 100 * top_k_accuracy(scores, labels[:, 0], 5) == pytest.approx(data["top5"].item())
    # There the labels that occur are numbered anew, which moves the classes behind one that does not.
    occurring = labels[labels >= 0].unique()
    renumbered = torch.where(labels < 0, -1, torch.searchsorted(occurring, labels))
    for kind, values in (("softmax", scores.softmax(1)), ("raw", scores)):
        assert_close(100 * average_precision(values, renumbered), data[f"ap_{kind}"].double(), atol=1e-5, rtol=0)
        found = 100 * mean_average_precision(values, renumbered)
        assert found == pytest.approx(data[f"map_{kind}"].item(), abs=1e-5)
    own = average_precision(scores, labels)
    absent = torch.isin(torch.arange(scores.shape[1]), occurring, invert=True)
    assert absent.any() == (case == "one_class_absent")
    assert torch.equal(own == 0, absent)
    assert torch.equal(own[occurring], average_precision(scores[:, occurring], renumbered))


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.9], [0.7, 0.3], [0.6, 0.2]])
    labels = torch.tensor([[0, -1], [1, -1], [0, 1], [1, 0]])
    # Class 0 is at places 1, 3 and 4, class 1 at 1, 2 and 3.
    assert_close(average_precision(scores, labels), torch.tensor([(1 + 2 / 3 + 3 / 4) / 3, 1.0], dtype=torch.float64))
    assert mean_average_precision(scores, labels[:, 0]) == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 2)


def test_equal_scores_keep_their_order_and_nan_comes_last():
    labels = torch.tensor([0, 1, 0])
    assert_close(average_precision(torch.zeros(3, 2), labels)[0].item(), (1 + 2 / 3) / 2)
    scores = torch.tensor([[NAN, 0.0], [0.5, 0.0], [-1e30, 0.0]])
    assert_close(average_precision(scores, labels)[0].item(), (1 / 2 + 2 / 3) / 2)


def test_metrics_of_no_video():
    none = torch.zeros(0, dtype=torch.int64)
    assert np.isnan(top_k_accuracy(torch.zeros(0, 3), none))
    assert mean_average_precision(torch.zeros(0, 3), none) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, y: top_k_accuracy(s[0], y), r"scores must be \[V, C\], got \(3,\) float32"),
        (
            lambda s, y: top_k_accuracy(s, y[:3]),
            r"labels must be \[V\] or \[V, L\] int64 with V=4 .*, got \(3,\) int64",
        ),
        (lambda s, y: average_precision(s, y.float()), r"labels must be .* int64 .*, got \(4,\) float32"),
        (lambda s, y: average_precision(s, y + 2), r"labels must be in \[0, 3\) \(scores\), or -1 as padding"),
        (lambda s, y: average_precision(s, y - 2), r"labels must be in \[0, 3\)"),
        (lambda s, y: top_k_accuracy(s, y, 4), "k must be at most C=3 .*, got 4"),
        (lambda s, y: top_k_accuracy(s, y, 0), "k must be at least 1, got 0"),
        (lambda s, y: top_k_accuracy(s, y[:, None]), r"labels must be \[V\], one a video, got \(4, 1\) int64"),
    ],
)
def test_bad_arguments_of_metrics(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(4, 3), torch.tensor([0, 1, 2, 0]))
