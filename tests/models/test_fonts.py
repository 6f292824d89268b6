"""Text in pictures: in a font that has it, or spelt out; and the answer's share is never cut off."""

import numpy as np
import pytest
from video_data import no_warnings

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
ImageFont = pytest.importorskip("PIL.ImageFont", reason="pictures need Pillow")
pytest.importorskip("av", reason="pictures need PyAV")

from adafocus_models.pictures import canvas, fonts  # noqa: E402

SIZE = 18


@pytest.fixture(autouse=True)
def fresh():
    fonts._system_font.cache_clear()
    yield
    fonts._system_font.cache_clear()


@pytest.fixture
def square_font(tmp_path):
    """A font whose glyphs are squares, of the characters of a word."""
    builder = pytest.importorskip("fontTools.fontBuilder", reason="making a font needs fontTools")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def glyph(side):
        pen = pens.TTGlyphPen(None)
        pen.moveTo((50, 0))
        for corner in ((50, side), (side, side), (side, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    characters = "走る 1%"
    names = [f"glyph{i}" for i in range(len(characters))]
    font = builder.FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names])
    font.setupCharacterMap({ord(c): name for c, name in zip(characters, names, strict=True)})
    font.setupGlyf({".notdef": glyph(300), **{name: glyph(800) for name in names}})
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 50)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    path = tmp_path / "squares.ttf"
    font.save(path)
    return str(path)


def ink(text, width=400):
    """The columns of one line that are not paper."""
    line = np.asarray(canvas.label(text, SIZE, canvas.INK, width)).astype(int)
    return (np.abs(line - np.array(canvas.PAPER)).sum(-1) > 60).any(0)


def test_the_own_font_is_taken_where_it_has_the_text():
    with no_warnings():
        font, text = fonts.font_for("Pushing something, 97.1%: [it]", SIZE)
    assert text == "Pushing something, 97.1%: [it]"
    assert font.getname() == ImageFont.load_default(SIZE).getname()


def test_a_font_of_the_system_that_has_the_text_is_taken(monkeypatch, square_font):
    files = ["not-there.ttf", __file__, square_font]
    monkeypatch.setattr(fonts, "_system_font_files", lambda characters: iter(files))
    with no_warnings():
        font, text = fonts.font_for("走る 1%", SIZE)
        drawn = ink("走る 1%")
    assert text == "走る 1%"
    assert font.getname()[0] == "Squares"
    assert 5 * 13 <= drawn.sum() <= 5 * 16  # five squares of 3/4 of the size, and their soft edges


def test_a_font_that_has_only_a_part_of_the_text_is_not(monkeypatch, square_font):
    monkeypatch.setattr(fonts, "_system_font_files", lambda characters: iter([square_font]))
    with pytest.warns(UserWarning, match=r"no font here has '\\u8d70', '\\u6b69': drawn as codes; install one"):
        font, text = fonts.font_for("走 or 歩", SIZE)
    assert text == r"\u8d70 or \u6b69"
    assert font.getname() == ImageFont.load_default(SIZE).getname()


@pytest.mark.parametrize(
    "text", ["", " ", "\u3000", "a\nb", "\udcff", "\x07", "\u200b", "Ж", "日本語", "한국어", "🦆", "ة"]
)
@pytest.mark.filterwarnings("ignore:no font here has")
def test_any_text_can_be_drawn(text):
    assert canvas.label(text, SIZE, canvas.INK, 300).size[0] == 300


def test_a_long_name_leaves_the_share_where_it_is():
    short, long = (ink(f"uni_adafocus_tsm_96_8+8: 97.1% {name}", 448) for name in ("Pushing", "Pushing " * 50))
    shared = len("uni_adafocus_tsm_96_8+8: 97.1% Pushing") * 5  # the columns of what both say, and not more
    assert (short[:shared] == long[:shared]).all()
    assert long.nonzero()[0].max() < 448
