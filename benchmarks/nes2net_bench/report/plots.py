"""How plots of benchmarks look: calibration's style, in colours that a page may change for dark screens."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nes2net_calib.plots import FAINT as FAINT
from nes2net_calib.plots import INK as INK
from nes2net_calib.plots import RULES, STYLE, svg

GRID = "#eaeef2"
PAPER = "#ffffff"
BLUE, PINK, GREEN, OCHRE = RULES["first"], RULES["full"], RULES["windows"], RULES["early"]
VIOLET, ORANGE = "#6e56cf", "#d95f02"
SERIES = (BLUE, PINK, GREEN, OCHRE, VIOLET, ORANGE)  # apart for the colour-blind in this order
# Names of a page's CSS variables, which have these colours on light screens and others on dark ones.
VARIABLES = {
    INK: "ink",
    FAINT: "faint",
    GRID: "grid",
    PAPER: "paper",
    **dict(zip(SERIES, ("blue", "pink", "green", "ochre", "violet", "orange"), strict=True)),
}
WIDTH = 5.4  # inches: a telephone shows it whole, and its text can still be read
_HEX = re.compile("|".join(VARIABLES))
_ID = re.compile(r'(?<= id=")|(?<=url\(#)|(?<=href="#)')


def picture(figure: Figure) -> str:
    """An <svg> element whose colours are the page's, and which shares no id with another."""
    text = svg(figure)
    own = hashlib.sha256(text.encode()).hexdigest()[:6]
    return _HEX.sub(lambda found: f"var(--{VARIABLES[found[0]]})", _ID.sub(f"{own}-", text))


def figure(height: float, width: float = WIDTH, **options: Any) -> tuple[Figure, Axes]:
    """A figure of one panel; to be drawn inside `style()`."""
    made = Figure(figsize=(width, height))
    return made, made.subplots(**options)


def style() -> Any:
    """Within it all plots look alike."""
    return rc_context(
        STYLE
        | {"axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "font.size": 8.5}
        | {"text.parse_math": False}  # a $ in a name is a $
    )


def rows(axes: Axes, names: Sequence[str]) -> None:
    """One name a row, from top to bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, lw=0.7)


def row_height(count: int, each: float = 0.36, rest: float = 0.8) -> float:
    """Inches of a figure of so many rows."""
    return rest + each * count


def legend_above(axes: Axes, columns: int = 4) -> None:
    """A legend over the panel, where no data is."""
    made = axes.get_figure()
    assert made is not None
    made.legend(loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2)
