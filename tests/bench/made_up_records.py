"""Records with made-up figures."""

ENV = {"commit": "0123456789abcdef", "dirty": False, "torch": "2.99", "threads": 2}


def throughput_record(case: str, videos_per_s: float, **changes) -> dict:
    return {
        "what": "throughput",
        "case": case,
        "table": "IV",
        "engine": "eager",
        "chosen": None,
        "mode": "inference",
        "layout": "channels_last",
        "device": "Made-up CPU",
        "dtype": "float32",
        "backend": "cpu",
        "threads": 2,
        "input": "clip.mp4",
        "batch_size": 2,
        "processes": 1,
        "frames": "8+8",
        "patch": 96,
        "exit_ratio": {"asked": 0.0, "realised": 0.0},
        "gflops": 8.83,
        "paper": {"gflops": 8.8, "videos_per_s": 569.4, "ratio": 2.61},
        "stats": {"p20_ms": 9.0, "p50_ms": 10.0, "p80_ms": 11.0, "n": 30},
        "videos_per_s": videos_per_s,
        "stages_ms": {"read": 0.5, "glance": 2.0, "policy": 0.25, "focus": 1.5, "head": 0.125},
        "peak_memory_mib": 123.4,
        "check": {"passed": True, "max_error": 1e-5, "tolerance": 1e-3},
        "ratios": {"tsm_plus_8+8": 3.2},
        "times_engine": {"eager": 1.0},
        "env": ENV,
    } | changes


def ops_record(case: str, **changes) -> dict:
    return {
        "what": "ops",
        "op": "crop_resize",
        "case": case,
        "input": "48 boxes",
        "device": "Made-up CPU",
        "dtype": "uint8",
        "layout": "contiguous",
        "mode": "forward",
        "backend": "cpu",
        "threads": 2,
        "stats": {"p20_ms": 1.0, "p50_ms": 1.25, "p80_ms": 1.5, "n": 30},
        "rival": "grid_sample",
        "others": {"grid_sample": {"p20_ms": 19.0, "p50_ms": 20.0, "p80_ms": 21.0, "n": 30}},
        "absent": {},
        "check": {"passed": True, "max_error": 1e-5, "tolerance": 2e-4},
        "ratios": {"grid_sample": 16.0},
        "at_least": 15,
        "env": ENV,
    } | changes


def scaling_record(value: int, ms: float, **changes) -> dict:
    return {
        "what": "scaling",
        "op": "crop_resize",
        "case": f"boxes: {value}",
        "series": "boxes",
        "value": value,
        "exponent": 0.97,
        "law": 1,
        "input": f"{value} boxes",
        "device": "Made-up CPU",
        "dtype": "uint8",
        "layout": "channels_last",
        "mode": "forward",
        "backend": "cpu",
        "threads": 2,
        "stats": {"p20_ms": ms, "p50_ms": ms, "p80_ms": ms, "n": 30},
        "check": {"passed": True, "max_error": 1e-5, "tolerance": 2e-4},
        "ratios": {},
        "env": ENV,
    } | changes
