"""Records to files, tables and the documentation."""

import json
import subprocess
from pathlib import Path

import pytest
from made_up_records import ENV, ops_record, scaling_record, throughput_record

from bench import report
from bench.cases import CASES
from bench.cases.models import PAPER
from bench.harness import environment, records, tables

EXPECTED_THROUGHPUT = """\
**Throughput: Made-up CPU; eager; float32; batch 2; 2 threads; backend cpu; torch 2.99; commit 0123456789**

| model | frames | patch | GFLOPs (paper) | videos/s | times TSM+ (paper) | paper, RTX 3090 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| uni_adafocus_tsm_96_8+8 | 8+8 | 96 | 8.8 (8.8) | 12.3 | 3.20 (2.61) | 569.4 |
| uni_adafocus_tsm_96_8+8/exit=0.5 | 8+8 | 96 | 8.8 (-) | 123 | - (-) | - |

**Milliseconds a video by stage, and peak memory beyond weights and frames**

| model | read and crop | glance | policy | focus | head | peak MiB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| uni_adafocus_tsm_96_8+8 | 0.50 | 2.00 | 0.25 | 1.50 | 0.12 | 123 |
| uni_adafocus_tsm_96_8+8/exit=0.5 | 0.50 | - | 0.25 | 1.50 | 0.12 | - |"""

EXPECTED_OPS = """\
**Ops: Made-up CPU; 48 boxes; 2 threads; backend cpu; torch 2.99; commit 0123456789**

| case | ms | grid_sample | at least |
| --- | ---: | ---: | ---: |
| a | 1.25 | 20 (16.0x) | 15x (met) |
| b | 1.25 | 20 (16.0x) | 17x (not met) |
| c | 1.25 | 20 (16.0x) | - |"""


EXPECTED_HEADLINE = """\
**Made-up CPU; threads: 2 for models; torch 2.99**

| case | ours | rival | times faster |
| --- | ---: | ---: | ---: |
| uni_adafocus_tsm_96_8+8 | 12.3 videos/s | 3.86 videos/s (tsm_plus_8+8) | 3.2 |"""


@pytest.fixture
def results(tmp_path):
    """A folder with the rows of the tables above, the models not in the paper's order."""
    early_exit = throughput_record(
        "uni_adafocus_tsm_96_8+8/exit=0.5",
        123.4,
        exit_ratio={"asked": 0.5, "realised": 0.5},
        paper=None,
        ratios={},
        peak_memory_mib=None,
        stages_ms={"read": 0.5, "policy": 0.25, "focus": 1.5, "head": 0.125},
    )
    models = [early_exit, throughput_record("uni_adafocus_tsm_96_8+8", 12.34)]
    records.write(tmp_path / "throughput_made-up-cpu.jsonl", models)
    ops_records = [ops_record("a"), ops_record("b", at_least=17), ops_record("c", at_least=None)]
    records.write(tmp_path / "ops_made-up-cpu.jsonl", ops_records)
    return tmp_path


def test_sections_are_these_tables(results):
    assert report.section("throughput", results) == EXPECTED_THROUGHPUT
    assert report.section("ops", results) == EXPECTED_OPS


def test_ops_tables_keep_inputs_apart_and_show_the_share_of_the_copy_bandwidth(results):
    more = ops_record(
        "d",
        input="16 boxes",
        bandwidth={"bytes": 1, "share": 0.625},
        bandwidth_at_least=0.6,
        at_least=None,
        at_most_us=6,
        launches={"adafocus_ops": 1, "grid_sample": 15},
    )
    records.write(results / "ops_other.jsonl", [more, ops_record("e", input="16 boxes")])
    tables = report.section("ops", results).split("\n\n**")
    assert tables[0] == EXPECTED_OPS
    assert "| case | ms | of copy | grid_sample | at least |" in tables[1]
    assert "| d | 1.25 | 62% | 20 (16.0x) | 60% (met), 6 us (not met), one launch (met) |" in tables[1]
    assert "| e | 1.25 | - | 20 (16.0x) | 15x (met) |" in tables[1]


def test_scaling_table_states_the_power_once_for_a_series():
    points = [
        scaling_record(16, 2.0),
        scaling_record(64, 7.75),
        scaling_record(1, 3.0, series="size", exponent=0, law=0),
    ]
    table = tables.scaling_table(points)
    assert table.lines == [
        ["boxes", "16", "2", "0.97", "at most 1"],
        ["boxes", "64", "7.75", "", ""],
        ["size", "1", "3", "0.00", "at most 0"],
    ]


def test_records_of_other_batch_sizes_and_inputs_stay(tmp_path):
    path = tmp_path / "x.jsonl"
    records.write(path, [throughput_record("a", 1.0), throughput_record("a", 2.0, batch_size=4), ops_record("b")])
    records.write(path, [throughput_record("a", 3.0, batch_size=4), ops_record("b", input="16 boxes")])
    kept = records.read(path)
    assert [record.get("videos_per_s") for record in kept] == [1.0, 3.0, None, None]
    assert [record["input"] for record in kept] == ["clip.mp4", "clip.mp4", "48 boxes", "16 boxes"]


def test_engines_stand_side_by_side(results):
    ours = {"engine": "engine", "chosen": {"glance_encoder": "layers", "focus_encoder": "openvino"}}
    more = [throughput_record("uni_adafocus_tsm_96_8+8", 15.0, **ours)]
    more += [throughput_record("uni_adafocus_tsm_96_8+8", 12.0, engine="compile")]
    records.write(results / "throughput_made-up-cpu.jsonl", more)
    compared, chosen = report.section("engine", results).split("\n\n**")
    assert "| model | eager | compile | engine | engine / fastest other |" in compared
    assert "| uni_adafocus_tsm_96_8+8 | 12.3 | 12 | 15 | 1.22 |" in compared
    assert "| uni_adafocus_tsm_96_8+8/exit=0.5 | 123 | - | - | - |" in compared
    assert "| uni_adafocus_tsm_96_8+8 | layers | openvino |" in chosen
    assert report.section("throughput", results).count("**Throughput: ") == 3
    assert "15 videos/s" in report.section("headline", results)  # the engine's, where it has run


def test_tables_keep_devices_and_dtypes_apart(results):
    more = [
        throughput_record("tsm_plus_8+8", 1.0, dtype="bfloat16"),
        throughput_record("tsm_plus_8+8", 1.0, device="Other"),
    ]
    records.write(results / "throughput_other.jsonl", more)
    assert report.section("throughput", results).count("**Throughput: ") == 3


def test_table_names_every_commit_and_whether_it_was_changed():
    other = throughput_record("b", 1.0)
    other["env"] = other["env"] | {"commit": "fedcba9876543210", "dirty": True}
    assert tables.describe([throughput_record("a", 1.0), other]).endswith("commit 0123456789, fedcba9876+")


def test_update_fills_in_between_the_markers_and_check_agrees(results, capsys):
    files = [results / "measured.md", results / "README.md"]
    before = (
        "# Title\n<!-- bench:throughput -->\nold\n<!-- /bench -->\ntext\n<!-- bench:ops -->\n<!-- /bench -->\nend\n",
        "# Other\n<!-- bench:headline -->\nold\n<!-- /bench -->\nend\n<!-- bench:engine -->\n<!-- /bench -->\n"
        "<!-- bench:streaming -->\n<!-- /bench -->\n<!-- bench:training -->\n<!-- /bench -->\n",
    )
    for file, text in zip(files, before, strict=True):
        file.write_text(text)
    arguments = ["--results", str(results)]
    assert report.main([*arguments, "--check", *map(str, files)]) == 1
    errors = capsys.readouterr().err
    assert all(f"{file}: its tables are not those of" in errors for file in files)
    assert tuple(file.read_text() for file in files) == before
    assert report.main([*arguments, "--update", *map(str, files)]) == 0
    expected = (
        f"# Title\n<!-- bench:throughput -->\n{EXPECTED_THROUGHPUT}\n<!-- /bench -->\ntext\n"
        f"<!-- bench:ops -->\n{EXPECTED_OPS}\n<!-- /bench -->\nend\n",
        f"# Other\n<!-- bench:headline -->\n{EXPECTED_HEADLINE}\n<!-- /bench -->\nend\n"
        "<!-- bench:engine -->\nNo measurement is in `bench/results` yet.\n<!-- /bench -->\n"
        "<!-- bench:streaming -->\nNo measurement is in `bench/results` yet.\n<!-- /bench -->\n"
        "<!-- bench:training -->\nNo measurement is in `bench/results` yet.\n<!-- /bench -->\n",
    )
    assert tuple(file.read_text() for file in files) == expected
    assert report.main([*arguments, "--check", *map(str, files)]) == 0


def test_missing_marker_is_an_error(results, capsys):
    file = results / "README.md"
    file.write_text("<!-- bench:throughput -->\n<!-- /bench -->\n")
    assert report.main(["--results", str(results), "--check", str(file)]) == 1
    assert "there must be a line <!-- bench:engine -->" in capsys.readouterr().err


def test_headline_has_ops_before_models(results):
    case = "exit_gate, 4096 x 400"
    records.write(results / "ops_more.jsonl", [ops_record(case), ops_record(case, backend="reference")])
    title, _, *lines = report.section("headline", results).splitlines()
    assert title == "**Made-up CPU; threads: 2 for ops, 2 for models; torch 2.99**"
    assert lines[2:] == [f"| {case} | 1.25 ms | 20 ms (grid_sample) | 16.0 |", EXPECTED_HEADLINE.splitlines()[-1]]


def test_headline_is_of_a_gpu_where_there_is_one(results):
    gpu = {"device": "Made-up GPU", "env": ENV | {"gpu": "Made-up GPU"}}
    records.write(results / "ops_gpu.jsonl", [ops_record("b"), ops_record("exit_gate, 4096 x 400", **gpu)])
    assert report.section("headline", results).splitlines()[0] == "**Made-up GPU; torch 2.99**"


def test_headlines_are_cases():
    assert set(report.HEADLINES) <= {case.name for case in CASES} | set(PAPER)


def test_fields_have_their_stored_names_in_a_file_only(tmp_path):
    path = tmp_path / "x.jsonl"
    records.write(path, [ops_record("a")])
    stored = json.loads(path.read_text())
    assert stored["baseline"] == "grid_sample"
    assert set(stored["contenders"]) == {"grid_sample"}
    assert not {"rival", "others"} & set(stored)
    assert records.read(path) == [ops_record("a")]


def test_without_records_the_section_says_so(tmp_path):
    assert report.section("ops", tmp_path) == "No measurement is in `bench/results` yet."


DOCUMENTS = [str(file.relative_to(environment.ROOT)) for file in report.FILES]


@pytest.fixture
def committed(tmp_path):
    """The documentation and the records as committed: a run may have added records to the working tree."""
    git = ["git", "-C", str(environment.ROOT)]
    if not (environment.ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, so nothing is committed")
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD"], capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name in DOCUMENTS or (name.startswith("bench/results/") and name.endswith(".jsonl")):
            content = subprocess.run([*git, "show", f"HEAD:{name}"], capture_output=True, check=True).stdout
            (tmp_path / Path(name).name).write_bytes(content)
    return tmp_path


def test_documentation_holds_the_tables_of_the_committed_records(committed):
    files = [str(committed / Path(name).name) for name in DOCUMENTS]
    assert report.main(["--results", str(committed), "--check", *files]) == 0


def test_committed_records_are_complete_and_passed_their_check(committed):
    for record in (record for what in ("throughput", "ops") for record in records.read_all(what, committed)):
        assert set(records.REQUIRED) <= set(record)
        assert record["check"]["passed"]
        stats = record["stats"]
        spread = (stats["p80_ms"] - stats["p20_ms"]) / stats["p50_ms"]
        assert stats["n"] >= (30 if spread > 0.03 else 10)  # what hardly varies needs fewer runs
        assert record["env"]["commit"]
        assert not record["env"]["dirty"]


def test_plot_is_written(results):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert report.main(["--results", str(results), "--plot"]) == 0
    (plot,) = results.glob("*.png")
    assert plot.name == "throughput_made-up-cpu-float32-2-threads-table-iv.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_write_replaces_records_of_equal_keys_only(tmp_path):
    path = tmp_path / "new" / "ops_x.jsonl"
    records.write(path, [ops_record("a"), ops_record("b")])
    records.write(path, [ops_record("a", at_least=99), ops_record("b", backend="reference")])
    written = records.read(path)
    assert [(record["case"], record["backend"], record["at_least"]) for record in written] == [
        ("a", "cpu", 99),
        ("b", "cpu", 15),
        ("b", "reference", 15),
    ]
    assert [json.loads(line)["at_least"] for line in path.read_text().splitlines()] == [99, 15, 15]


def test_records_refuse_what_is_not_a_number(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        records.write(tmp_path / "x.jsonl", [ops_record("a", at_least=float("nan"))])
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "slug"), [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("AMD EPYC (2)", "amd-epyc-2")]
)
def test_device_name_in_a_file_name(name, slug):
    assert environment.slug(name) == slug
