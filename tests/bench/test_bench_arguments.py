"""What the programs of bench/ refuse before they start, what they warn of, and how they end where nobody reads on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_up_records import throughput_record

from bench import cuda_report, estimators, ops, throughput
from bench.cases import models
from bench.harness import console, cuobjdump, environment, plots, tables

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many", ""])
@pytest.mark.parametrize(
    ("program", "option"),
    [
        *((program, option) for program in (ops, throughput, estimators) for option in ("--runs", "--threads")),
        (throughput, "--batch-size"),
    ],
)
def test_what_counts_is_at_least_1(program, option, value, capsys):
    with pytest.raises(SystemExit):
        program.main([option, value])
    assert f"argument {option}: must be an integer of at least 1, got {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("configs", [["tsm_plus_8+8"], ["tsm_plus"], ["tsm_plus", "tsm_plus_8+8"]])
def test_an_exit_ratio_needs_an_exit(configs, capsys):
    with pytest.raises(ValueError, match=r"an exit ratio of 0\.3 needs a model with an early exit, got tsm_plus"):
        models.select(configs, 0.3)
    with pytest.raises(SystemExit):
        throughput.main(["--synthetic", "--exit-ratio", "0.3", "--configs", *configs])
    assert "needs a model with an early exit" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("video", ["absent.mp4", "/no/such/folder/clip.mp4"])
def test_a_missing_video_is_said_to_be_missing(video, installed, monkeypatch, capsys):
    if not installed:
        monkeypatch.setattr("bench.harness.clip.PACKAGE", "a-package-that-nobody-has")
    with pytest.raises(SystemExit):
        throughput.main(["--video", video])
    assert f"error: there is no file {video}, nor a clip that ships with a package (" in capsys.readouterr().err


NAMES = models.NAMES["IV"]


# --- one configuration alone ------------------------------------------------------------------------------------------


def titles(monkeypatch, tmp_path, records: list) -> str:
    """The title of the bars, and their labels."""
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    from matplotlib.axes import Axes

    texts = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: texts.append(text))
    monkeypatch.setattr(Axes, "bar_label", lambda self, bars, labels, **_: texts.extend(labels))
    plots.plot_throughput(records, tmp_path, NAMES)
    return " ".join(texts)


@pytest.mark.parametrize("case", ["tsm_plus_8+8", "uni_adafocus_tsm_96_8+8"])
def test_one_configuration_alone_has_no_ratio(case, monkeypatch, tmp_path):
    alone = [throughput_record(case, 12.0, ratios={case: 1.0} if case == NAMES.rival else {})]
    table = tables.throughput_table(alone, NAMES)
    assert table.columns == ["model", "frames", "patch", "GFLOPs (paper)", "videos/s", "paper, RTX 3090"]
    assert table.lines == [[case, "8+8", "96", "8.8 (8.8)", "12", "569.4"]]
    drawn = titles(monkeypatch, tmp_path, alone)
    assert "Throughput" in drawn
    assert "ratio" not in drawn
    assert "x" not in drawn.split("Throughput")[0]


def test_beside_the_rival_there_is_one(monkeypatch, tmp_path):
    rival = throughput_record("tsm_plus_8+8", 4.0, ratios={"tsm_plus_8+8": 1.0})
    both = [rival, throughput_record("uni_adafocus_tsm_96_8+8", 12.0, ratios={"tsm_plus_8+8": 3.0})]
    table = tables.throughput_table(both, NAMES)
    assert table.columns[5] == "times TSM+ (paper)"
    assert [line[5] for line in table.lines] == ["1.00 (2.61)", "3.00 (2.61)"]
    assert "ratio to TSM+" in titles(monkeypatch, tmp_path, both)


# --- warnings, progress, and the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("load", "warns"), [(0.5, False), (4.0, False), (4.01, True), (70.0, True)])
def test_a_loaded_machine_is_warned_of(load, warns, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 99.0, 99.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    lines = environment.header(environment.environment(torch.device("cpu")))
    found = [line for line in lines if line.startswith("warning: ")]
    expected = [f"warning: the load average {load} is above the 4 cores: other work slows down what is timed"]
    assert found == expected * warns


def test_every_dump_is_a_step(monkeypatch, tmp_path):
    dumps = {"--dump-resource-usage": "arch = sm_86\n Function k:\n  REG:1 STACK:0 SHARED:0\n", "--dump-elf": ""}
    monkeypatch.setattr(cuobjdump, "find_cuobjdump", lambda: Path("cuobjdump"))
    monkeypatch.setattr(cuobjdump, "_dump", lambda tool, option, extension: dumps.get(option, ""))
    monkeypatch.setattr(cuobjdump, "parse_instructions", lambda text: {(86, "k"): []})
    monkeypatch.setattr(cuobjdump, "short_names", lambda names: names)
    steps = []
    assert len(cuobjdump.read_kernels(tmp_path / "x.so", on_dump=lambda: steps.append(1))) == 1
    assert len(steps) == cuobjdump.NUM_DUMPS == cuda_report.NUM_DUMPS


PROGRAMS = {
    "print": "print('x' * 10**6); return 0",
    "table": "console.print_table('t', ['a', 'b'], [['x', '1']] * 30000); return 0",
    "help": "print('x' * 10**6); raise SystemExit(0)",
}


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_where_nobody_reads_on_it_ends_quietly(program, rich):
    if rich and console.rich is None:
        pytest.skip("rich is not installed")
    lines = [
        "import sys",
        "from bench.harness import console",
        *([] if rich else ["console.rich = None"]),
        f"def main(): {PROGRAMS[program]}",
        "sys.exit(console.run_program(main))",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_other_ends_are_what_they_were():
    assert console.run_program(lambda: 3) == 3
    with pytest.raises(SystemExit, match="2"):
        console.run_program(lambda: sys.exit(2))
    with pytest.raises(ValueError, match="kept"):
        console.run_program(lambda: int("kept"))
