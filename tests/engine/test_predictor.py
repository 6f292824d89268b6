"""The engine as a stage of other systems: rows in, rows with answers out."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="reading videos needs PyAV")

from engine_models import quick  # noqa: F401
from tiny_models import tiny
from video_data import write_video

from adafocus_models import predict
from adafocus_models.engine import VideoPredictor

NAME = "uni_adafocus_tsm"
OPTIONS = {"batch_size": 2, "runtime": "library", "check": False, "keep_memory": False, "top": 3}


@pytest.fixture
def predictor(quick):  # noqa: F811
    return VideoPredictor(tiny(NAME), **OPTIONS)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [str(write_video(folder / f"{number}.mp4", 10 + number)) for number in range(3)]


def expected(path: str) -> list[int]:
    _, _, output = predict.predict(tiny(NAME), path)
    return output.logits[0].topk(3).indices.tolist()


def assert_answers(found, paths):
    assert [list(each) for each in found["top_classes"]] == [expected(path) for path in paths]
    assert list(found["class"]) == [expected(path)[0] for path in paths]
    assert list(found["error"]) == [None] * len(paths)
    assert all(len(boxes) == len(index) == 2 for boxes, index in zip(found["boxes"], found["frame_index"], strict=True))


def test_columns_of_paths_and_of_bytes(predictor, paths):
    found = predictor({"path": np.array(paths), "number": np.arange(3)})
    assert_answers(found, paths)
    assert list(found["number"]) == [0, 1, 2]
    content = [Path(path).read_bytes() for path in paths]
    for column in (content, np.array(content, dtype=object), [bytearray(each) for each in content]):
        found = predictor({"bytes": column, "name": paths})
        assert "bytes" not in found
        assert_answers(found, paths)


def test_rows_and_frames_come_back_as_they_came(predictor, paths):
    rows = predictor([{"path": path, "key": key} for key, path in enumerate(paths)])
    assert [row["key"] for row in rows] == [0, 1, 2]
    assert_answers({name: [row[name] for row in rows] for name in rows[0]}, paths)
    json.dumps(rows)  # plain numbers and lists
    assert predictor([]) == []
    pandas = pytest.importorskip("pandas", reason="DataFrames need pandas")
    found = predictor(pandas.DataFrame({"path": paths}))
    assert isinstance(found, pandas.DataFrame)
    assert_answers(found, paths)


def test_a_row_without_an_answer_says_why(predictor, paths):
    found = predictor({"path": [paths[0], "missing.mp4"]})
    assert found["class"][0] == expected(paths[0])[0]
    assert found["class"][1] == -1
    assert found["boxes"][1] == []
    assert "missing.mp4 does not exist" in found["error"][1]
    broken = predictor({"bytes": [b"not a video"]})
    assert "a video of 11 bytes cannot be read as a video" in broken["error"][0]


@pytest.mark.parametrize(
    ("batch", "message"),
    [({"name": ["a"]}, "must have a column 'path' or 'bytes', got 'name'"), ("a.mp4", "must be columns, a DataFrame")],
)
def test_other_batches(predictor, batch, message):
    with pytest.raises((TypeError, ValueError), match=message):
        predictor(batch)


def test_ray_data_gives_the_same_answers(paths, quick):  # noqa: F811
    ray = pytest.importorskip("ray", reason="Ray Data is an extra: adafocus[ray]")
    pytest.importorskip("ray.data", reason="Ray Data is an extra: adafocus[ray]")
    context = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=context, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"path": path} for path in [*paths, "missing.mp4"]])
        options = {**OPTIONS, "model": partial(tiny, NAME), "progress": False}
        found = rows.map_batches(
            VideoPredictor, fn_constructor_kwargs=options, batch_size=2, compute=ray.data.ActorPoolStrategy(size=1)
        ).take_all()
    finally:
        ray.shutdown()
    by_path = {row["path"]: row for row in found}
    assert set(by_path) == {*paths, "missing.mp4"}
    for path in paths:
        assert list(by_path[path]["top_classes"]) == expected(path)
        assert by_path[path]["error"] is None
    assert "does not exist" in by_path["missing.mp4"]["error"]
