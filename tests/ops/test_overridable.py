"""Public ops are overridable: torch.fx records each as one node, whatever name it was imported by."""

import operator
import pickle

import pytest
import torch

import adafocus_ops
from adafocus_ops import backends
from adafocus_ops import crop_resize as imported_by_another_name
from adafocus_ops.examples import EXAMPLES


@pytest.mark.parametrize("op", backends.ops())
def test_symbolic_trace_records_one_node(op):
    example = next(EXAMPLES[op].small(torch.float32, "contiguous"))
    public = getattr(adafocus_ops, op)

    class Model(torch.nn.Module):
        def forward(self, first):
            return public(first, *example.args[1:], **example.kwargs)

    traced = torch.fx.symbolic_trace(Model())
    calls = [node for node in traced.graph.nodes if node.op == "call_function"]
    assert [node.target for node in calls] == [public]
    first = example.args[0]
    got, expected = traced(first.clone()), Model()(first.clone())
    for g, e in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, expected)), strict=True):
        assert torch.equal(g, e)


def test_a_traced_model_is_pickled_and_takes_sizes_from_its_input():
    class Model(torch.nn.Module):
        def forward(self, frames, boxes):
            patches = imported_by_another_name(frames, boxes, (frames.shape[2] // 2, 4))
            return operator.add(patches, adafocus_ops.entropy(patches).unsqueeze(-1))

    traced = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(Model())))
    frames, boxes = torch.rand(2, 3, 8, 9), torch.tensor([[4, 4, 5, 6], [3, 5, 4, 4.0]])
    assert torch.equal(traced(frames, boxes), Model()(frames, boxes))


def test_a_subclass_may_take_over():
    class Logged(torch.Tensor):
        seen: list = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.seen.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    frames = torch.rand(2, 3, 8, 9).as_subclass(Logged)
    out = adafocus_ops.crop_resize(frames, torch.ones(2, 4), 2)
    assert adafocus_ops.crop_resize in Logged.seen
    assert isinstance(out, Logged)


def test_features_of_our_networks_are_extracted():
    """torchvision's create_feature_extractor works on a backbone with temporal shift, which is a leaf of the graph."""
    feature_extraction = pytest.importorskip("torchvision.models.feature_extraction", reason="torchvision is not there")
    from adafocus_models.backbones.resnet import ResNet50

    model = ResNet50(8).eval()
    extractor = feature_extraction.create_feature_extractor(model, {"layer3": "middle"})
    with torch.no_grad():
        assert extractor(torch.rand(8, 3, 64, 64))["middle"].shape == (8, 1024, 4, 4)
