"""Models inside of other things: modules that hold and convert them, copies, torch.compile and torch.export."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from adafocus_models import Output, UniAdaFocusTSM, multiply_adds
from adafocus_ops import ExitGate, exit_gate


class Outer(nn.Module):
    """A module of a user that holds one of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.model = UniAdaFocusTSM(3, 32, 2, 2, 5)
        self.own = nn.Conv2d(3, 4, 3)


@pytest.fixture(scope="module")
def original() -> Outer:
    return Outer().eval()


@pytest.fixture
def outer(original) -> Outer:
    return copy.deepcopy(original)


def convolution(outer: Outer) -> Tensor:
    """A weight of five dimensions."""
    return outer.model.spatial_policy.layers[3].weight


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_memory_formats_reach_weights_of_five_dimensions(outer, original):
    assert outer.to(memory_format=torch.channels_last) is outer
    assert convolution(outer).is_contiguous(memory_format=torch.channels_last_3d)
    assert outer.model.focus_encoder.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert outer.own.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same_weights(outer, original)
    outer.to(torch.float64, memory_format=torch.channels_last).float()
    assert convolution(outer).is_contiguous(memory_format=torch.channels_last_3d)
    outer.to(memory_format=torch.contiguous_format)
    assert convolution(outer).is_contiguous()
    assert_same_weights(outer, original)


CONVERSIONS = {
    "half": (lambda m: m.half(), torch.float16),
    "bfloat16": (lambda m: m.bfloat16(), torch.bfloat16),
    "double": (lambda m: m.double(), torch.float64),
    "to": (lambda m: m.to(torch.bfloat16, memory_format=torch.channels_last), torch.bfloat16),
    "both": (lambda m: m.to(memory_format=torch.channels_last).to("cpu", torch.float16), torch.float16),
    "type": (lambda m: m.type(torch.float64), torch.float64),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_dtypes(conversion, outer, original):
    convert, dtype = CONVERSIONS[conversion]
    parameters = dict(outer.named_parameters())
    convert(outer)
    for name, value in original.state_dict().items():
        found = outer.state_dict()[name]
        assert found.shape == value.shape
        assert torch.equal(found, value.to(dtype) if value.is_floating_point() else value)
    assert all(parameter is parameters[name] for name, parameter in outer.named_parameters())  # optimizers hold these


def test_gradients_are_converted_too(outer):
    weight = convolution(outer)
    weight.grad = torch.rand_like(weight)
    before = weight.grad.clone()
    outer.to(memory_format=torch.channels_last).double()
    assert torch.equal(weight.grad, before.double())
    assert weight.grad.is_contiguous(memory_format=torch.channels_last_3d)


def through_a_file(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_a_file])
def test_copies(copied, original):
    made = copied(original)
    assert_same_weights(made, original)
    assert convolution(made).data_ptr() != convolution(original).data_ptr()


def test_meta_and_back(original):
    with torch.device("meta"):
        made = Outer()
    assert convolution(made).is_meta
    made.to_empty(device="cpu").load_state_dict(original.state_dict())
    assert_same_weights(made, original)
    assert convolution(made.to("meta")).is_meta


def test_shared_memory(outer, original):
    outer.share_memory()
    assert all(value.is_shared() for value in outer.state_dict().values())
    assert_same_weights(outer, original)


def test_multiply_adds_of_wrapped_models(outer):
    model = outer.model
    counts = multiply_adds(model)
    assert counts["total"] > 0
    assert multiply_adds(torch.compile(nn.DataParallel(model))) == counts
    assert multiply_adds(nn.DataParallel(torch.compile(model))) == counts
    model.focus_encoder = torch.compile(model.focus_encoder)
    model.glance_encoder.compile()
    assert multiply_adds(model) == counts
    with pytest.raises(TypeError, match="model must be a VideoModel, got Outer"):
        multiply_adds(outer)


# --- torch.export -----------------------------------------------------------------------------------------------------


def exported(module: nn.Module, *inputs: Tensor) -> object:
    """What a program gives that went through a file."""
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()(*inputs)


class Answers(nn.Module):
    def forward(self, x: Tensor) -> tuple[Output, ExitGate]:
        output = Output(x, x[:, None], x.long(), x, x, glance_index=None)
        return output, exit_gate(x, 0.5, capacity=4, backend="reference")


def test_exported_programs_return_what_the_models_and_ops_do():
    x = torch.tensor([[0.0, 9.0], [1.0, 1.0], [7.0, 0.0]])
    output, gate = exported(Answers(), x)
    assert type(output) is Output
    assert type(gate) is ExitGate
    expected = Answers()(x)
    for found, value in zip((*output, *gate), (*expected[0], *expected[1]), strict=True):
        assert found is value is None or torch.equal(found, value)
