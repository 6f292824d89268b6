"""Cases of crop_mean, beside crops that are made and averaged."""

from dataclasses import dataclass

from torch import Tensor

from adafocus_ops import crop_mean
from bench.cases.crop_resize import F16, F32, MAPS, Crop, CropFunction, Inputs, in_both_layouts


@dataclass(frozen=True)
class CropMean(Crop):
    """crop_mean of one box a frame."""

    op = "crop_mean"
    has_simple_kernel = False

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of what is made of a channel of a box: one number."""
        return ()

    def ours(self, data: Inputs) -> Tensor:
        """The op."""
        return crop_mean(data.frames, data.boxes, self.patch, **self.read_options(data))

    def unfused(self, data: Inputs, crop: CropFunction) -> Tensor:
        """The steps that the op replaces, around another crop."""
        return self.crops(data, crop).mean((-2, -1)).to(self.out_dtype)


CASES = [
    *in_both_layouts(CropMean(3, F32, **MAPS)),
    *in_both_layouts(CropMean(3, F16, out_dtype=F16, **MAPS)),
    *in_both_layouts(CropMean(3, F32, gradient="boxes", **MAPS)),
]
