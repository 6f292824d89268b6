"""Recipes: the published numbers, and how others take their place."""

import dataclasses

import pytest

from adafocus_models import create_model
from adafocus_models.registry import architecture_of
from adafocus_models.training import RATES, RECIPES, Recipe, changed, rates_of
from adafocus_models.training.optimisation import make_optimizer, parameter_groups, set_dropout, set_rates

# Data set -> the published numbers.
PUBLISHED = {
    "activitynet": (32, 0.002, 2e-4, 1.0, 0.2, 0.2, None),
    "fcvid": (64, 0.004, 1e-4, 1.0, 0.2, 0.2, None),
    "mini_kinetics": (48, 0.003, 1e-4, 0.75, 0.1, 0.2, None),
    "something_v1": (64, 0.02, 1e-3, 0.5, 0.5, 0.0, 20),
    "something_v2": (64, 0.02, 5e-4, 0.5, 0.5, 0.0, 20),
    "jester": (64, 0.02, 1e-3, 0.25, 0.5, 0.0, 20),
    "kinetics400": (64, 0.005, 5e-5, 0.5, 0.5, 0.5, 20),
}
# Recipe -> initial rate -> weights that have it, without the layers of ImageNet's classes, which are not here.
VALUES = {
    "activitynet": {0.0004: 258368 + 1074432, 0.001: 3504872 - 1281000 + 2 * 256200, 0.04: 52984064},
    "something_v1": {0.004: 258368 + 1250048, 0.01: 2669660 + 222894},
    "kinetics400": {0.002: 95552 + 1145600, 0.0025: 3794322 + 1704336 + 173200, 0.005: 6153432 + 1704336},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers(name):
    r = RECIPES[name]
    found = (r.batch_size, r.learning_rate, r.weight_decay, r.objective["size_weight"], r.dropout, r.head_dropout)
    assert (*found, r.clip_norm) == PUBLISHED[name]
    assert (r.epochs, r.momentum, r.optimizer) == (50, 0.9, "sgd")
    assert r.flip == (name not in ("something_v1", "something_v2", "jester"))


@pytest.mark.parametrize("name", VALUES)
def test_rates_reach_as_many_weights_as_published(name):
    recipe = RECIPES[name]
    model = create_model(recipe.model, num_classes=recipe.num_classes)
    optimizer = make_optimizer(parameter_groups(model, recipe, rates_of(recipe, architecture_of(recipe.model))), recipe)
    found = {}
    for group in optimizer.param_groups:
        found[round(group["lr"], 9)] = found.get(round(group["lr"], 9), 0) + sum(p.numel() for p in group["params"])
    for rate, values in VALUES[name].items():
        if rate == recipe.learning_rate:  # beside what X3D's frame heads have
            assert found[rate] >= values
        else:
            assert found[rate] == values, rate
    assert sum(found.values()) == sum(p.numel() for p in model.parameters())


def test_half_a_cosine_by_epoch():
    recipe = Recipe("tsm", 5, 4, 0.1, 0.0)
    model = create_model("adafocus_v1", num_classes=5, policy_width=8, head_width=8)
    optimizer = make_optimizer(parameter_groups(model, dataclasses.replace(recipe, objective={"stage": 3}), {}), recipe)
    assert [len(group["params"]) for group in optimizer.param_groups] == [6]  # a GRU cell and a linear layer
    rates = []
    for epoch in range(4):
        set_rates(optimizer, epoch, 4)
        rates += [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)


def test_every_architecture_with_rates_has_the_parts_that_they_name():
    for architecture, rates in RATES.items():
        names = [name for name, _ in create_model(architecture).named_parameters()]
        for part in rates:
            assert any(name.startswith(f"{part}.") for name in names), (architecture, part)


@pytest.mark.parametrize("name", ["uni_adafocus", "uni_adafocus_tsm", "uni_adafocus_x3d", "adafocus_v2"])
def test_dropout_is_where_the_published_code_has_it(name):
    model = create_model(name)
    set_dropout(model, Recipe(name, 5, 4, 0.1, 0.0, dropout=0.25, head_dropout=0.5))
    found = {n: m.p for n, m in model.named_modules() if type(m).__name__ == "Dropout"}
    assert (
        found
        == {
            "uni_adafocus": {"dropout": 0.25, "glance_head.dropout": 0.5, "focus_head.dropout": 0.5},
            "uni_adafocus_tsm": {"dropout": 0.25},
            "uni_adafocus_x3d": {
                "glance_head.dropout": 0.5,
                "focus_head.dropout": 0.5,
                "glance_aux_head.1.1": 0.25,
                "focus_aux_head.1.1": 0.25,
            },
            "adafocus_v2": {"dropout": 0.25, "head.dropout": 0.5},
        }[name]
    )


def test_what_is_set_takes_the_place_of_the_recipes():
    recipe, told = changed(
        RECIPES["something_v1"],
        {
            "batch_size": "16",
            "epochs": "3",
            "flip": "true",
            "arguments.patch_size": "96",
            "objective.size_weight": "0.25",
            "rates.spatial_policy": "0.1",
            "clip_norm": "none",
            "precision": "bfloat16",
        },
    )
    assert (recipe.batch_size, recipe.epochs, recipe.flip, recipe.clip_norm) == (16, 3, True, None)
    assert recipe.arguments == {"patch_size": 96}
    assert recipe.objective == {"size_weight": 0.25}
    assert rates_of(recipe, "uni_adafocus_tsm")["spatial_policy"] == 0.1
    assert recipe.learning_rate == pytest.approx(0.005)
    assert told == ["learning rate 0.005 for batches of 16, scaled from 0.02 for 64"]
    same, told = changed(RECIPES["something_v1"], {"batch_size": "16", "learning_rate": "1"})
    assert (same.learning_rate, told) == (1.0, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": "3"}, "there is no 'batchsize' to set; there are accumulate, arguments.NAME"),
        ({"objective": "3"}, "there is no 'objective' to set"),
        ({"epochs.x": "3"}, "there is no 'epochs.x' to set"),
        ({"epochs": "0"}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": "many"}, "epochs must be a whole number of at least 1, got 'many'"),
        ({"dropout": "1"}, r"dropout must be a number in \[0, 1\), got 1"),
        ({"precision": "half"}, "precision must be one of float32, bfloat16, float16, got 'half'"),
        ({"learning_rate": "-1"}, "learning_rate must be a number of at least 0, got -1"),
        ({"clip_norm": "0"}, "clip_norm must be a number above 0 or None, got 0"),
        ({"flip": "maybe"}, "flip must be True or False, got 'maybe'"),
        ({"batch_size": "64.5"}, "batch_size must be a whole number"),
    ],
)
def test_what_cannot_be_set(changes, message):
    with pytest.raises(ValueError, match=message):
        changed(RECIPES["jester"], changes)


def test_a_rate_of_no_weight_is_told():
    recipe, _ = changed(RECIPES["jester"], {"rates.spatial_polic": "0.1"})
    with pytest.raises(ValueError, match="rates has spatial_polic, which is how no weight that learns is called"):
        parameter_groups(create_model("tsm", num_classes=5), recipe, rates_of(recipe, "tsm"))


def test_stages_of_v1_must_be_named():
    with pytest.raises(ValueError, match=r"AdaFocusV1 is trained in stages: set objective\.stage to 0, 1, 2 or 3"):
        parameter_groups(create_model("adafocus_v1"), RECIPES["activitynet"], {})
