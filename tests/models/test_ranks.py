"""Several processes of torchrun: each has its share and its device, and rank 0 tells what one process would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adafocus_models import command_line
from adafocus_models.ranks import Ranks

ROOT = Path(__file__).parents[2]
# The command with a model that answers at once.
STUBBED = """
import sys
from stub_model import Stub
from adafocus_models import chosen_model, predict
chosen_model.create_model = lambda name, **_: Stub()
sys.exit(predict.main())
"""
# What each of three processes says of itself, and what rank 0 has gathered.
GATHERED = """
import sys
from adafocus_models.ranks import Ranks
here = Ranks.of_torchrun()
with here.joined():
    everyone = here.gather({"rank": here.rank, "share": here.share(range(7))})
    squares = list(here.in_order(lambda items: (i * i for i in items), range(7)))
    none = list(here.in_order(lambda items: items, []))
if here.rank == 0:
    assert [one["rank"] for one in everyone] == [0, 1, 2]
    assert [list(one["share"]) for one in everyone] == [[0, 3, 6], [1, 4], [2, 5]]
    assert squares == [i * i for i in range(7)]
else:
    assert everyone == squares == []
assert none == []
"""


def run(*command, processes=1):
    """A script or module (-m name) with its arguments, in so many processes of torchrun, or as it is."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--local-addr", "localhost"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    paths = map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "models"))
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def stubbed(tmp_path):
    path = tmp_path / "stubbed.py"
    path.write_text(STUBBED)
    return path


@pytest.fixture
def clips(tmp_path):
    pytest.importorskip("av", reason="predicting on videos needs PyAV")
    pytest.importorskip("PIL.Image", reason="predicting on videos needs Pillow")
    from stub_model import write_frames

    return [write_frames(tmp_path / name) for name in ("a", "b", "c")]


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "1")  # of some other launcher
    here = Ranks.of_torchrun()
    assert here == (0, 1, 0)
    with here.joined():
        assert not torch.distributed.is_initialized()
        assert here.gather("a") == ["a"]
        assert here.share([1, 2, 3]) == [1, 2, 3]
        asked = []
        results = here.in_order(lambda items: (asked.append(i) or 2 * i for i in items), [1, 2, 3])
        assert next(results) == 2
        assert asked == [1]  # each comes as soon as it is there
    assert here.device(torch.device("cuda")) == torch.device("cuda")


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    here = Ranks(rank=5, world_size=8, local_rank=1)
    assert here.device(torch.device("cuda")) == torch.device("cuda:1")
    assert here.device(torch.device("cuda:0")) == torch.device("cuda:0")
    assert here.device(torch.device("cpu")) == torch.device("cpu")
    assert here.share("abcdefghijklmno") == "fn"
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Ranks.of_torchrun() == here
    asked = []
    monkeypatch.setattr(command_line.torch, "empty", lambda size, *, device: asked.append(device))
    assert command_line.device("cuda") == torch.device("cuda:1")
    assert asked == [torch.device("cuda:1")]  # no other GPU is touched


def test_the_first_expected_error_is_told_by_rank_0(monkeypatch):
    def fail(items):
        raise FileNotFoundError("no such file")

    sent = []
    monkeypatch.setattr(Ranks, "gather", lambda self, value: sent.append(value) or [([1], None), value])
    with pytest.raises(ValueError, match="no such file"):
        list(Ranks(0, 2).in_order(fail, [1, 2], expected=(OSError,)))
    assert sent == [([], "no such file")]
    with pytest.raises(FileNotFoundError):
        list(Ranks(0, 2).in_order(fail, [1, 2]))


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch was built without gloo")
class TestProcesses:
    def test_gather(self, tmp_path):
        script = tmp_path / "gathered.py"
        script.write_text(GATHERED)
        done = run(script, processes=3)
        assert done.returncode == 0, done.stderr

    def test_predictions_are_printed_as_by_one(self, stubbed, clips):
        one, two = (run(stubbed, *clips, processes=count) for count in (1, 2))
        assert (one.returncode, two.returncode) == (0, 0), two.stderr
        assert one.stdout.count("uni_adafocus_tsm") == 3
        assert two.stdout == one.stdout

    def test_a_clip_that_rank_1_cannot_read(self, stubbed, clips, tmp_path):
        clips[1] = tmp_path / "missing.mp4"
        one, two = (run(stubbed, *clips, "--json", processes=count) for count in (1, 2))
        assert one.returncode == 2
        assert two.stdout == one.stdout
        assert two.stderr.count(one.stderr) == 1
        assert two.returncode != 0  # torchrun's own is 1, whatever that of the process that it reports
        assert re.findall(r"local_rank: (\d+)\)\n *exitcode *: (\d+)", two.stderr) == [("0", "2")]

    def test_an_argument_that_does_not_fit_is_told_once(self, stubbed, clips):
        done = run(stubbed, *clips, "--labels", "missing.txt", processes=2)
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.count("error: ") == 1

    @pytest.mark.slow
    def test_a_real_model(self, clips):
        command = ("-m", "adafocus_models.predict", *clips[:2], "--model", "x3d_s", "--json")
        one, two = run(*command), run(*command, processes=2)
        assert two.returncode == 0, two.stderr
        assert two.stdout == one.stdout
