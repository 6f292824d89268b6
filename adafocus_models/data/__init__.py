"""Videos in: from a file or a folder of frames to the uint8 clips that a model takes, and to batches to train on.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

try:
    from .augmentation import centre_box, read_augmented, training_box
    from .clips import Clip, random_segments, read_clip, segment_centres, short_side_for
    from .training_clips import Batch, EpochOrder, Sample, TrainingClips, batch_of
    from .video_lists import MOST_ERRORS, Video, list_videos
except ImportError as error:
    raise ImportError(f'reading videos needs PyAV and Pillow ({error}): pip install "adafocus[video]"') from error

__all__ = [
    "MOST_ERRORS",
    "Batch",
    "Clip",
    "EpochOrder",
    "Sample",
    "TrainingClips",
    "Video",
    "batch_of",
    "centre_box",
    "list_videos",
    "random_segments",
    "read_augmented",
    "read_clip",
    "segment_centres",
    "short_side_for",
    "training_box",
]
