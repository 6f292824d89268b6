"""What README and the pages of docs/ show runs, and what they point to is there."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from adafocus_models import list_models
from bench.harness.clip import sample_clip

ROOT = Path(__file__).parents[1]
README, EXAMPLES = (ROOT / name for name in ("README.md", "docs/examples.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def run_example(page: Path, heading: str) -> dict:
    """Runs the first example below a heading of a page; returns its variables."""
    section = page.read_text().split(f"## {heading}\n", 1)[1]
    names = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    return names


def test_blocks_of_readme_run_as_pasted_one_after_the_other(monkeypatch):
    monkeypatch.setattr("adafocus_models.engine.walking.LAYER_SECONDS", 0.0)
    monkeypatch.setattr("adafocus_models.engine.tuning.MODULE_SECONDS", 0.0)
    pytest.importorskip("av", reason="the second block reads a video")
    try:
        sample_clip()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    names = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL):
        exec(block, names)
    assert names["patches"].shape == (3, 3, 96, 96)
    assert names["boxes"].grad.abs().sum() > 0
    assert names["output"].logits.shape == (1, 174)


def test_a_backbone_of_torchvision_makes_a_network():
    pytest.importorskip("torchvision", reason="the example takes a backbone of torchvision's")
    block = re.search(r"```py\n([^`]*class Backbone.*?)```", README.read_text(), re.DOTALL)[1]
    names = {}
    exec(block, names)
    assert names["losses"].total.isfinite()
    assert all(p.grad is not None for p in names["model"].focus_encoder.parameters())


def test_readme_installs_what_a_build_without_isolation_needs():
    """pip takes it from the environment then: build-system.requires of pyproject.toml."""
    needed = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    line, following = re.search(r"^(pip install .*)\n(.*)$", README.read_text(), re.MULTILINE).groups()
    assert following == "pip install --no-build-isolation ."
    installed = shlex.split(line)[2:]
    for requirement in map(shlex.split, needed.split(", ")):
        name = re.match(r"[\w-]+", requirement[0])[0]
        assert requirement[0] in installed or name in installed, f"{line!r} lacks {requirement[0]}"


def test_every_published_checkpoint_that_readme_names_has_its_model():
    """The data set, patch size and frames of a file's name, in that of a configuration."""
    models = set(re.findall(r"uni_adafocus_tsm_[\d+_]*\d", README.read_text()))
    files = re.findall(r"`\w+_p(\d+)_(\d+)and(\d+)\.pth\.tar`", README.read_text())
    assert len(files) == 2
    for patch, glance, focus in files:
        name = f"uni_adafocus_tsm_{patch}_{glance}+{focus}"
        assert name in models
        assert name in list_models()


def test_antialiasing_and_the_mean_of_a_crop():
    assert run_example(EXAMPLES, "Without aliasing, and without the crop")["thumbnail"].requires_grad


def test_only_images_that_are_unsure_reach_the_later_stages():
    names = run_example(EXAMPLES, "Early exit in any classifier")
    model, images, thresholds = names["model"], names["images"], names["thresholds"]
    assert 3.9 < thresholds.expected_cost <= 4
    batches = [[] for _ in model.stages]
    for stage, batch in zip(model.stages, batches, strict=True):
        stage.register_forward_hook(lambda module, inputs, output, batch=batch: batch.append(len(inputs[0])))
    with torch.no_grad():
        assert torch.equal(model(images, thresholds).logits, names["logits"])
        answers = model(images).exit_logits  # [64, 3, 10]
    entropy = torch.distributions.Categorical(logits=answers[:, :2]).entropy()  # [64, 2]
    most = -thresholds.values[:2]
    assert (entropy - most).abs().min() > 1e-6  # rounding decides nothing
    leaves = torch.cat([entropy <= most, torch.ones(64, 1, dtype=torch.bool)], 1).int().argmax(1)
    assert torch.equal(names["exits"].exit_index, leaves)
    assert [batch[0] for batch in batches] == [64, int((leaves > 0).sum()), int((leaves > 1).sum())]
    assert 64 > batches[1][0] > batches[2][0] > 0
    torch.testing.assert_close(names["logits"], answers[torch.arange(64), leaves])


def test_early_exit_with_the_ops_alone():
    names = run_example(EXAMPLES, "Early exit with the ops alone")
    features, first, second = names["features"], names["first"], names["second"]
    unsure = torch.distributions.Categorical(logits=first(features)).entropy() > 2.2
    assert 0 < unsure.sum() < 64
    torch.testing.assert_close(names["logits"], torch.where(unsure[:, None], second(features), first(features)))


def test_selector_learns_to_pick_what_shows_the_class():
    names = run_example(EXAMPLES, "Learning what to pick")
    assert names["right"] > 0.95
    assert names["loss"].isfinite()


def without_code(text: str) -> str:
    """A page's text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links may name of a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGE
def test_links_point_to_something(page):
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    missing = []
    for link in relative:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(link)
    assert not missing, f"{page.relative_to(ROOT)} points to {', '.join(missing)}"


# A path in code font that is no placeholder: it begins with a folder of the repository.
NAMED = re.compile(r"`((?:adafocus_ops|adafocus_models|bench|csrc|docs|tests|third_party)/[\w./*-]*)[^`<]*`")


@PAGE
def test_files_that_a_page_names_are_there(page):
    named = set(NAMED.findall(without_code(page.read_text())))
    missing = sorted(path for path in named if not any(ROOT.glob(path.rstrip("/"))))
    assert not missing, f"{page.relative_to(ROOT)} names {', '.join(missing)}"


# "`name` in `path`" and "`name` (`path`)", as pages say where something is.
PLACED = re.compile(r"`([\w.:]+)`(?: in| \()\s?`((?:adafocus_ops|adafocus_models|bench|csrc|tests)/[\w./]+\.\w+)`")


@PAGE
def test_what_a_page_places_in_a_file_is_there(page):
    missing = []
    for name, path in PLACED.findall(without_code(page.read_text())):
        last = re.split(r"[.:]+", name)[-1]
        if not re.search(rf"\b{re.escape(last)}\b", (ROOT / path).read_text()):
            missing.append(f"{name} in {path}")
    assert not missing, f"{page.relative_to(ROOT)} looks for {', '.join(missing)}"
