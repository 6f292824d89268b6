"""Growth: python bench/ops.py --scaling."""

import dataclasses

import pytest
import torch
from made_up_records import ENV
from small_cases import CPU, U8, never

from adafocus_ops import crop_resize
from bench import cases, ops
from bench.cases import crop_resize as crop_cases
from bench.cases import exit_gate as gate_cases
from bench.cases import expected_value as expectation_cases
from bench.cases import weighted_sample as draw_cases
from bench.harness import measuring, records, scaling
from bench.harness.case import MismatchError


@pytest.fixture(autouse=True)
def same_number_of_threads():
    """The script sets it for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


SMALL_SERIES = scaling.Series(
    "boxes", 1, {n: crop_cases.Crop(4, U8, frame_size=16, sides=(5, 12), num_boxes=n) for n in (1, 2, 4, 40)}
)


def test_scaling_run_keeps_a_record_for_every_point(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ops, "SERIES", {"cpu": [SMALL_SERIES]})
    monkeypatch.setattr(ops, "copy_gb_per_s", lambda device: 10.0)
    path = tmp_path / "x.jsonl"
    arguments = ["--scaling", "--device", "cpu", "--backend", "reference", "--runs", "2", "--json", str(path)]
    assert ops.main(arguments) == 0
    found = records.read(path)
    assert [record["input"].split()[0] for record in found] == ["1", "2", "4", "40"]
    assert len({records.key(record) for record in found}) == 4
    for record in found:
        assert set(records.REQUIRED) <= set(record)
        assert record["what"] == "scaling"
        assert record["check"]["passed"]
    assert "at most 1" in capsys.readouterr().out


SERIES_OF_OTHER_OPS = [
    *draw_cases.draw_series(20, samples=[4, 8, 16]),
    *expectation_cases.expectation_series(20, depths=[16, 20, 24], samples=[4, 8, 16]),
    *gate_cases.gate_series([8, 16, 32]),
]


@pytest.mark.parametrize("series", SERIES_OF_OTHER_OPS, ids=lambda series: series.name)
def test_series_of_the_other_ops(series):
    found = scaling.measure_series(series, CPU, "reference", runs=1, env=ENV | {"device": "this"})
    assert [record["value"] for record in found] == list(series.workloads)
    assert all(record["check"]["passed"] for record in found)
    assert {record["input"].split()[0] for record in found} == {"logits" if "gate" in series.name else "20"}


def test_growth_of_some_only(capsys):
    assert ops.main(["--scaling", "--device", "cpu", "--list", "--cases", "weighted_sample"]) == 0
    assert capsys.readouterr().out.splitlines() == ["weighted_sample: samples", "weighted_sample: items"]


def test_scaling_checks_before_it_times(monkeypatch):
    monkeypatch.setattr(crop_cases, "crop_resize", lambda *args, **kwargs: crop_resize(*args, **kwargs) + 1)
    monkeypatch.setattr(measuring, "interleave", never)
    with pytest.raises(MismatchError):
        scaling.measure_series(SMALL_SERIES, CPU, "reference", runs=1, env=ENV)


def test_exponent_is_that_of_the_largest_values():
    assert scaling.exponent({1: 9.0, 10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1)
    assert scaling.exponent({8: 5.0, 2: 5.0, 4: 5.0}) == pytest.approx(0)


@pytest.mark.parametrize("device", cases.SERIES)
def test_a_series_varies_one_thing(device):
    assert len({series.name for series in cases.SERIES[device]}) == len(cases.SERIES[device])
    for series in cases.SERIES[device]:
        assert len(series.workloads) >= scaling.FITTED_POINTS
        points = [dataclasses.asdict(workload) for workload in series.workloads.values()]
        values = [{str(point[name]) for point in points} for name in points[0]]
        assert sorted(len(different) for different in values if len(different) > 1) == [len(points)]
