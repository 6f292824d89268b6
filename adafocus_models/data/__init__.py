"""Videos in: from a file or a folder of frames to the uint8 clips that a model takes.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

try:
    from .clips import Clip, read_clip, segment_centres, short_side_for
    from .video_lists import Video, list_videos
except ImportError as error:
    raise ImportError(f'reading videos needs PyAV and Pillow ({error}): pip install "adafocus[video]"') from error

__all__ = ["Clip", "Video", "list_videos", "read_clip", "segment_centres", "short_side_for"]
