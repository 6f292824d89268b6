"""Timing helpers and the environment."""

import torch

from bench.harness import environment, timing

CPU = torch.device("cpu")


def test_calls_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    rounds = []
    times = timing.interleave(calls, CPU, runs=3, warmup=2, on_round=lambda: rounds.append(None))
    assert "".join(order) == "ab" * 5
    assert len(rounds) == 5
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_time_limit_leaves_the_least_number_of_runs():
    times = timing.interleave({"a": lambda: None}, CPU, runs=30, max_seconds=0, min_runs=4)
    assert len(times["a"]) == 4


def test_stats_are_percentiles():
    assert timing.stats([float(n) for n in range(101)]) == {"p20_ms": 20.0, "p50_ms": 50.0, "p80_ms": 80.0, "n": 101}


def test_peak_memory_sees_what_is_freed_again():
    def call():
        torch.ones(64 * 2**20 // 4).sum()

    peak = timing.peak_memory_mib(call, CPU)
    assert peak is None or 60 < peak < 100


def test_environment_names_what_a_figure_depends_on():
    facts = environment.environment(CPU)
    assert facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["commit"] is None or len(facts["commit"]) == 40
    assert isinstance(facts["dirty"], bool)
    text = "\n".join(environment.header(facts))
    assert facts["processor"] in text
    assert f"torch {facts['torch']}" in text


def test_command_keeps_no_folder_of_this_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/bench/ops.py", "--json", "/home/someone/x.jsonl", "--runs", "3"])
    assert environment.environment(CPU)["command"] == ["ops.py", "--json", "x.jsonl", "--runs", "3"]
