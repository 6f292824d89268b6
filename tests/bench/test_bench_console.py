"""Tables on a terminal, with rich and without."""

import pytest

from bench.harness import console

ROWS = [["crop", "1.5", "met"], ["longer name", "12", "-"]]


@pytest.mark.parametrize("plain", [True, False])
def test_text_is_on_the_left_and_figures_on_the_right(monkeypatch, capsys, plain):
    if plain:
        monkeypatch.setattr(console, "rich", None)
    elif console.rich is None:
        pytest.skip("rich is not installed")
    console.print_table("Title", ["case", "milliseconds", "verdict"], ROWS, text=["verdict"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].strip() == "Title"
    head, short, long = lines[1], lines[-2], lines[-1]
    assert short.index("crop") == long.index("longer") == head.index("case")
    assert short.index("1.5") + 3 == long.index("12") + 2 == head.index("milliseconds") + len("milliseconds")
    assert short.index("met") == long.index("-") == head.index("verdict")
