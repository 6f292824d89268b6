"""A model made fast: its hot modules in the forms that are right and fastest on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from ..networks import VideoModel
from .candidates import contest, reason_of, wrong_forms
from .choices import LAYERS, PLAIN, Choice
from .layers import CONVOLUTIONS, as_layers
from .measuring import median_ms
from .runtimes import RUNTIMES, Runtime
from .walking import Step, Walk

ENCODERS = ("glance_encoder", "focus_encoder")
MODULE_SECONDS = 3.0  # about how long the forms of a module take turns
NOISE = 1.02  # times as long that the same work takes in two measurements


def tune_model(
    model: VideoModel,
    example: tuple[Tensor, Tensor | None],
    runtimes: Sequence[Runtime],
    *,
    named: bool,
    check: bool,
    known: Mapping[str, Choice] | None,
    step: Step,
) -> dict[str, Choice]:
    """Puts the fastest right forms in the places of a model's hot modules.

    Args:
        model: folded, in evaluation mode, in its dtype, memory format and on its device; changed in place.
        example: frames, and glance frames or None, of the batch that it is tuned for.
        runtimes, named, check: as for `tune`.
        known: module -> its choice, where they were made before.
        step: told of what is next.

    Returns:
        module -> its choice.

    Raises:
        RuntimeError, ValueError: as `tune` and `rebuild`.
    """
    step("looks at the model")
    found: dict[str, Choice] = {}
    plain: dict[str, nn.Module] = {}
    for name, x in module_inputs(model, example).items():
        module, whole = model.get_submodule(name), name in ENCODERS

        def say(text: str, name: str = name) -> None:
            step(f"{name}: {text}")

        if known is None:
            able = runtimes if whole else [RUNTIMES["library"]]
            form, found[name] = tune(module, x, able, whole=whole, named=named, check=check, step=say)
        else:
            require(name in known, lambda name=name: f"choices must have one for {name}")
            form, found[name] = rebuild(module, x, known[name], check=check, step=say), known[name]
        model.set_submodule(name, Tuned(form, module, x))
        plain[name] = module
    if known is None and not named:
        step("compares the whole")
        if _is_slower(model, example, plain):
            for name, module in plain.items():
                model.set_submodule(name, module)
                found[name] = replace(found[name], form=PLAIN)
    return found


def module_inputs(model: VideoModel, example: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Hot module -> its input for the example, of those that a forward calls, in the order of their calls."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, args: tuple[Tensor]) -> None:
        inputs.setdefault(name, args[0])

    names = hot_modules(model)
    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(keep, name)) for name in names]
    try:
        model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _is_slower(model: VideoModel, example: tuple[Tensor, Tensor | None], plain: Mapping[str, nn.Module]) -> bool:
    """Tells if the whole model takes longer than with the plain modules, though no form alone does: threads of
    several runtimes can be in each other's way."""
    tuned = {name: model.get_submodule(name) for name in plain}

    def run(modules: Mapping[str, nn.Module]) -> None:
        for name, module in modules.items():
            model.set_submodule(name, module)
        model(*example)

    calls = {"tuned": lambda: run(tuned), PLAIN: lambda: run(plain)}
    ms = median_ms(calls, example[0].device, seconds=MODULE_SECONDS, as_graphs=False)
    run(tuned)
    return ms["tuned"] > NOISE * ms[PLAIN]


def hot_modules(model: VideoModel) -> list[str]:
    """Names of the modules that are worth it: the encoders, and whatever else is a chain with convolutions."""
    names = [name for name in ENCODERS if hasattr(model, name)]
    for name, module in model.named_modules():
        is_chain = isinstance(module, nn.Sequential) and any(isinstance(m, CONVOLUTIONS) for m in module.modules())
        if is_chain and not any(name.startswith(f"{known}.") for known in names):
            names.append(name)
    return names


class Tuned(nn.Module):
    """A form in the place of a module, with its attributes and a weight that shows what its input is to be like."""

    def __init__(self, form: nn.Module, module: nn.Module, x: Tensor) -> None:
        super().__init__()
        memory_format = getattr(form, "memory_format", torch.channels_last)
        like = torch.empty((2, 2, 2, 2), dtype=x.dtype, device=x.device).to(memory_format=memory_format)
        self.like = nn.Parameter(like, requires_grad=False)  # the first, at which whoever feeds an encoder looks
        self.form = form
        for name in ("out_channels", "reduction", "num_frames"):
            if hasattr(module, name):
                setattr(self, name, getattr(module, name))

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x)


def tune(
    module: nn.Module,
    x: Tensor,
    runtimes: Sequence[Runtime],
    *,
    whole: bool,
    named: bool,
    check: bool,
    step: Step = lambda _: None,
) -> tuple[nn.Module, Choice]:
    """The fastest right form of a module, and how it was found.

    Args:
        module: folded, in evaluation mode, in its dtype and memory format.
        x: its input, of the batch that it is tuned for.
        runtimes: those that may compute it.
        whole: they may do so as a whole, not only layer by layer.
        named: they were asked for by name: the plain form is none of them, and one that cannot run it is an error.
        check: compare every form with the plain one before it is timed.

    Raises:
        RuntimeError: a runtime that was asked for by name cannot run it, or not rightly.
    """
    forms, left_out = {PLAIN: module}, {}
    layers: dict[str, Choice] = {}
    try:
        walk = Walk(as_layers(module), runtimes, check=check, step=step)
        forms[LAYERS] = walk.choose(x)
        layers = walk.choices
    except Exception as error:  # of torch.fx, which cannot follow every forward
        left_out[LAYERS] = reason_of(error)
    for runtime in runtimes if whole else ():
        step(f"{runtime.name} prepares")
        try:
            form = runtime.module_form(module, x)
        except Exception as error:
            left_out[runtime.name] = reason_of(error)
            continue
        if form is not None:
            forms[runtime.name] = form
    if whole and named:
        _check_named(module, x, forms, left_out, runtimes)
        forms = {name: form for name, form in forms.items() if name in _named(runtimes)} or forms
    step("all take turns")
    form, ms, wrong, result = contest(module, forms, (x,), seconds=MODULE_SECONDS, check=check)
    choice = Choice(
        form=form,
        ms=ms,
        left_out=left_out | wrong,
        signature="x".join(map(str, x.shape)),
        multiply_adds=sum(layer.multiply_adds for layer in layers.values()),
        bytes=sum(tensor.nbytes for tensor in (x, result, *module.parameters())),
        layers=layers,
    )
    return forms[form], choice


def _check_named(
    module: nn.Module,
    x: Tensor,
    forms: dict[str, nn.Module],
    left_out: dict[str, str],
    runtimes: Sequence[Runtime],
) -> None:
    """Raises RuntimeError if a runtime that was asked for by name failed."""
    names = _named(runtimes)
    wrong = wrong_forms(module, {name: form for name, form in forms.items() if name in names}, (x,))
    failed = {name: reason for name, reason in (left_out | wrong).items() if name in names}
    require(
        not failed,
        lambda: "; ".join(f"runtime {name!r} cannot run this module: {reason}" for name, reason in failed.items()),
        RuntimeError,
    )


def _named(runtimes: Sequence[Runtime]) -> set[str]:
    """Names of the forms that come from these runtimes."""
    return {LAYERS if runtime.offers_layers else runtime.name for runtime in runtimes}


def rebuild(module: nn.Module, x: Tensor, choice: Choice, *, check: bool, step: Step = lambda _: None) -> nn.Module:
    """The form that was chosen before, checked again but not timed.

    Raises:
        ValueError: there is no such form here, or it is not right.
    """
    step(f"{choice.form} prepares")
    runtimes = list(RUNTIMES.values())
    if choice.form == PLAIN:
        return module
    if choice.form == LAYERS:
        form = Walk(as_layers(module), runtimes, check=False, known=choice.layers).choose(x)
    else:
        require(choice.form in RUNTIMES, lambda: f"choices must be of {', '.join(RUNTIMES)}, got {choice.form!r}")
        form = RUNTIMES[choice.form].module_form(module, x)
    wrong = wrong_forms(module, {choice.form: form}, (x,)) if check else {}
    require(not wrong, lambda: f"choices must give right results, but {wrong}")
    return form
