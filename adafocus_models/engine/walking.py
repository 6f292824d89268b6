"""The choice of a form for every layer of a module, in one run through it."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, fx, nn

from adafocus_ops.checks import require

from .candidates import contest
from .choices import PLAIN, Choice
from .layers import Layer
from .runtimes import Runtime

LAYER_SECONDS = 0.15  # about how long the forms of a layer take turns

Step = Callable[[str], None]  # told of what is next


class Walk(fx.Interpreter):
    """A run through a graph of layers, which chooses a form of each layer when its inputs are there.

    Args:
        layered: what `as_layers` made.
        runtimes: those that offer forms.
        check: compare forms with the layer before they are timed.
        known: layer -> its choice, where they were made before.
        step: told of every kind of layer that is timed.
    """

    def __init__(
        self,
        layered: fx.GraphModule,
        runtimes: Sequence[Runtime],
        *,
        check: bool,
        known: Mapping[str, Choice] | None = None,
        step: Step = lambda _: None,
    ) -> None:
        super().__init__(layered)
        self.layered, self.runtimes, self.check, self.known, self.step = layered, runtimes, check, known, step
        self.choices: dict[str, Choice] = {}  # layer -> its choice
        self._forms: dict[str, nn.Module] = {}
        self._of_signature: dict[str, Choice] = {}

    def choose(self, x: Tensor) -> fx.GraphModule:
        """The graph with every layer in its chosen form.

        Raises:
            ValueError: a known choice is of a form that there is not.
        """
        self.run(x)
        for name, form in self._forms.items():
            setattr(self.layered, name, form)
        return self.layered

    def call_module(self, target: str, args: tuple, kwargs: dict) -> Tensor:
        layer = self.fetch_attr(target)
        if not isinstance(layer, Layer):
            return super().call_module(target, args, kwargs)
        forms = {PLAIN: layer}
        for runtime in self.runtimes:
            found = runtime.layer_forms(layer, *args)
            forms |= {f"{runtime.name}: {label}": form for label, form in found.items()}
        self.choices[target] = choice = self._choice(target, layer, args, forms)
        self._forms[target] = forms[choice.form]
        return layer(*args)  # the plain one, which overwrites nothing

    def _choice(self, target: str, layer: Layer, inputs: tuple, forms: Mapping[str, nn.Module]) -> Choice:
        signature = layer.signature(*inputs)
        if self.known is not None:
            choice = self.known.get(target)
            fits = choice is not None and choice.form in forms and choice.signature == signature
            require(fits, lambda: f"choices must have one of {', '.join(forms)} for {target} ({signature})")
            return choice
        if signature not in self._of_signature:
            self.step(signature)
            self._of_signature[signature] = self._measured(signature, layer, inputs, forms)
        return self._of_signature[signature]

    def _measured(self, signature: str, layer: Layer, inputs: tuple, forms: Mapping[str, nn.Module]) -> Choice:
        form, ms, left_out, result = contest(layer, forms, inputs, seconds=LAYER_SECONDS, check=self.check)
        tensors = (*inputs, result, *layer.parameters())
        return Choice(
            form=form,
            ms=ms,
            left_out=left_out,
            signature=signature,
            multiply_adds=result.numel() * layer.convolution.weight[0].numel(),
            bytes=sum(tensor.nbytes for tensor in tensors),
        )
