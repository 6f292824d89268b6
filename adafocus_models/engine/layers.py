"""A module as a list of layers, each a convolution with the shift before it and the sum and activation after it."""

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from adafocus_ops import depthwise_conv3d, temporal_shift

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu_,
    "relu6": lambda x: nn.functional.hardtanh_(x, 0.0, 6.0),
    "silu": lambda x: nn.functional.silu(x, inplace=True),
}
_ACTIVATION_MODULES = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SiLU: "silu"}
_SUMS = (operator.add, operator.iadd, torch.add)


class Layer(nn.Module):
    """activation(convolution(shift(x)) + other): the specification that every faster form of it is checked against.

    Args:
        convolution: with BatchNorm folded into it.
        num_frames: of the clips that the temporal shift before it acts on; 0 for none.
        activation: one of ACTIVATIONS, or None.
        overwrites_other: nobody needs `other` afterwards, so that the sum may take its memory.
    """

    def __init__(
        self,
        convolution: nn.Conv2d | nn.Conv3d,
        num_frames: int = 0,
        activation: str | None = None,
        overwrites_other: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.num_frames = num_frames
        self.activation = activation
        self.overwrites_other = overwrites_other

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        out = self.convolution(self.shift(x))
        if other is not None:
            out += other
        return self.activate(out)

    def activate(self, out: Tensor) -> Tensor:
        """out after the layer's activation, if it has one; overwrites it."""
        return ACTIVATIONS[self.activation](out) if self.activation else out

    def shift(self, x: Tensor) -> Tensor:
        """x with the temporal shift that comes before the convolution, if one does."""
        return temporal_shift(x, self.num_frames) if self.num_frames else x

    def signature(self, x: Tensor, other: Tensor | None = None) -> str:
        """All that the time of a layer depends on, in words: layers of one signature are the same work."""
        conv = self.convolution
        words = [
            f"{len(conv.kernel_size)}d",
            "x".join(map(str, conv.kernel_size)),
            f"stride {'x'.join(map(str, conv.stride))}",
            f"padding {'x'.join(map(str, conv.padding))}",
            f"groups {conv.groups}",
            f"{'x'.join(map(str, x.shape))} -> {conv.out_channels}",
        ]
        words += [f"shift {self.num_frames}"] if self.num_frames else []
        words += ["add in place" if self.overwrites_other else "add"] if other is not None else []
        words += [self.activation] if self.activation else []
        return ", ".join(words)


class _Tracer(fx.Tracer):
    """Sees convolutions, those of subclasses too, and our ops as wholes."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(temporal_shift, depthwise_conv3d))

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, CONVOLUTIONS) or super().is_leaf_module(module, name)


def trace(module: nn.Module) -> fx.GraphModule:
    """The module as a graph of its convolutions, other layers and functions, that shares its weights.

    Raises:
        Exception: whatever torch.fx does with a forward that it cannot follow, which depends on values, say.
    """
    graph = _Tracer().trace(module)
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), nn.Identity):
            node.replace_all_uses_with(node.args[0])  # where a BatchNorm was folded
            graph.erase_node(node)
    return fx.GraphModule(module, graph)


def as_layers(module: nn.Module) -> fx.GraphModule:
    """The module, with folded BatchNorm, as a graph whose convolutions are Layers; it shares the module's weights.

    Raises:
        Exception: as `trace`.
    """
    traced = trace(module)
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and isinstance(traced.get_submodule(node.target), CONVOLUTIONS):
            _make_layer(traced, node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


def layers_of(module: nn.Module) -> dict[str, Layer]:
    """Name -> layer of a module that `as_layers` made, in order."""
    return {name: child for name, child in module.named_modules() if isinstance(child, Layer)}


def _make_layer(traced: fx.GraphModule, node: fx.Node) -> None:
    """Puts a Layer in the place of a convolution and of what belongs to it."""
    x, last, merged = node.args[0], node, [node]
    num_frames = _shift_alone(x)
    if num_frames:
        merged.insert(0, x)
        x = x.args[0]
    other = None
    user = _only_user(last)
    if user is not None and (other := _other_of_sum(user, last)) is not None:
        merged.append(last := user)
    activation = None
    user = _only_user(last)
    if user is not None and (activation := _activation_of(traced, user)) is not None:
        merged.append(last := user)

    name = node.target.replace(".", "_") + "_layer"
    overwrites = other is not None and _dies_here(other, last, merged, x)
    traced.add_module(name, Layer(traced.get_submodule(node.target), num_frames, activation, overwrites))
    with traced.graph.inserting_after(last):
        layer = traced.graph.call_module(name, (x,) if other is None else (x, other))
    last.replace_all_uses_with(layer)
    for old in reversed(merged):
        traced.graph.erase_node(old)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _shift_alone(node: fx.Node) -> int:
    """The frames of a temporal shift with default arguments that one convolution alone reads; else 0."""
    is_shift = node.op == "call_function" and node.target is temporal_shift and len(node.users) == 1
    return node.args[1] if is_shift and len(node.args) == 2 and not node.kwargs else 0


def _other_of_sum(node: fx.Node, term: fx.Node) -> fx.Node | None:
    """The other term, if the node is a sum of two nodes of which writing into one changes nothing else."""
    is_method = node.op == "call_method"
    first_is_overwritten = (is_method and node.target == "add_") or node.target is operator.iadd
    is_sum = (is_method and node.target == "add") or (node.op == "call_function" and node.target in _SUMS)
    terms = node.args
    if not (is_sum or first_is_overwritten) or len(terms) != 2 or node.kwargs:
        return None
    if not all(isinstance(each, fx.Node) for each in terms) or terms[0] is terms[1]:
        return None
    if first_is_overwritten and terms[0] is not term:
        return None
    return terms[1] if terms[0] is term else terms[0]


def _activation_of(traced: fx.GraphModule, node: fx.Node) -> str | None:
    if node.op != "call_module":
        return None
    return _ACTIVATION_MODULES.get(type(traced.get_submodule(node.target)))


def _dies_here(other: fx.Node, last: fx.Node, merged: list[fx.Node], x: fx.Node) -> bool:
    """Tells if nobody reads the other term after this layer, and its memory is of its own: it is a layer's result."""
    order = {node: place for place, node in enumerate(last.graph.nodes)}
    readers = [user for user in other.users if user not in merged]
    is_result = other.op == "call_module" and isinstance(last.graph.owning_module.get_submodule(other.target), Layer)
    return is_result and other is not x and all(order[user] < order[merged[0]] for user in readers)
