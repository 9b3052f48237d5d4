"""Figures as SVG in the page: text stays text, and colours are the page's own, so that they follow its dark mode.

A colour ``#rrggbb`` of the figure becomes ``var(--c-rrggbb)``; :func:`palette` says what it is on light and on dark
ground. What lies on a coloured image (a cross on contours, a number in a heat map's cell) keeps its colour.
"""

import functools
import io
import math
import re
from collections.abc import Iterable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PathCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

from reports.raster import PAGE_DPI
from reports.style import settings

MOST_MARKS = 2000  # of a collection that stay vector; more are drawn as pixels
MANY_POINTS = 100  # of a path, from which it is worth to leave out those that change nothing
GROUND, INK = "#16181b", "#e8e8e4"  # of the page in the dark
_FIXED = "fixed"  # name of the groups that keep their colours
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
_LONG = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is enough
_GREY = 0.02  # chroma below which a colour is a grey


def svg_of(figure: Figure, name: str, alt: str) -> str:
    """Return a figure as an ``<svg>`` element of an HTML page.

    Args:
        figure: laid out; its dense parts become pixels, and parts of it get a group's name.
        name: of the figure, which no other one of the page has: its ids start with it.
        alt: what it shows, for readers who do not see it.
    """
    for axes in figure.axes:
        _prepare(axes)
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with settings(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "alignscape"}):
        figure.savefig(buffer, format="svg", dpi=PAGE_DPI, facecolor="none", edgecolor="none", metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    _name(root, name)
    _recolour(root, fixed=False)
    width, height = (float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height"))
    root.attrib = {
        "role": "img",
        "aria-label": alt,
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": f"aspect-ratio: {width:g} / {height:g}",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _prepare(axes: Axes) -> None:
    """Have dense parts of a panel drawn as pixels, and what lies on them keep its colours."""
    dense = [one for one in axes.collections if _is_dense(one)]
    for collection in dense:
        collection.set_rasterized(True)
    if axes.name == "3d" or not (dense or axes.images):
        return
    for artist in (axes.patch, *axes.lines, *axes.texts, *axes.patches, *axes.collections):
        _keep_colours(artist)


def _keep_colours(artist: Artist) -> None:
    artist.set_gid(_FIXED)


def _is_dense(collection: Collection) -> bool:
    filled = isinstance(collection, ContourSet) and bool(collection.filled)
    if filled or isinstance(collection, QuadMesh | Poly3DCollection):
        return True
    marks = np.asarray(collection.get_offsets()) if isinstance(collection, PathCollection) else collection.get_paths()
    return len(marks) > MOST_MARKS


def _strip(root: ElementTree.Element) -> None:
    """Take off what HTML has no use for: namespaces, records and styles of the whole document."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for element in root.iter():
        for child in [one for one in element if one.tag in ("metadata", "style")]:
            element.remove(child)
        for key in {"x", "y"} & element.attrib.keys():
            element.attrib[key] = _LONG.sub(r"\1", element.attrib[key])
        if "d" in element.attrib:
            element.attrib["d"] = _short_path(element.attrib["d"])
        styles = {child.attrib.get("style", "") for child in element}
        if len(element) > 1 and len(styles) == 1 and all(child.tag == "use" for child in element):
            element.attrib["style"] = styles.pop()
            for child in element:
                child.attrib.pop("style", None)
        for text in {"text", "tail"} if element.tag != "text" and element.tag != "tspan" else set[str]():
            if not (getattr(element, text) or "").strip():
                setattr(element, text, None)


def _short_path(path: str) -> str:
    """Return a path to a hundredth of a point, without the points of straight lines along an axis but their ends."""
    path = _LONG.sub(r"\1", path)
    if set(re.findall("[A-Za-z]", path)) - {"M", "L", "z"} or path.count("L") < MANY_POINTS:
        return re.sub(r"\s+", " ", path).strip()
    kept: list[tuple[str, str, str]] = []
    for command, x, y in re.findall(r"([MLz])\s*([-\d.]*)\s*([-\d.]*)", path):
        while len(kept) > 1 and command == kept[-1][0] == "L" and _on_one_axis(kept[-2], kept[-1], (command, x, y)):
            kept.pop()
        kept.append((command, x, y))
    return "".join(f"{command}{x} {y}" if x else command for command, x, y in kept)


def _on_one_axis(*points: tuple[str, str, str]) -> bool:
    return any(len({point[axis] for point in points}) == 1 for axis in (1, 2))


def _name(root: ElementTree.Element, name: str) -> None:
    """Call every id that is referred to by the figure's name and a number, and remove the others, but for those that
    say that colours stay.

    matplotlib's own names are digests of coordinates, which differ in their last digit from process to process.
    """
    places = {"href", "clip-path", "style", "fill", "mask"}
    pattern = re.compile(r"(url\(#|^#)([^)]+)")
    elements = list(root.iter())
    values = [value for one in elements for key, value in one.attrib.items() if key in places]
    used = {old for value in values for _, old in pattern.findall(value)}
    own = [one.attrib["id"] for one in elements if one.attrib.get("id") in used]
    number = {old: f"{name}-{place}" for place, old in enumerate(own)}
    for one in elements:
        if (old := one.attrib.get("id", _FIXED)) in number:
            one.attrib["id"] = number[old]
        elif old != _FIXED:
            del one.attrib["id"]
        for key in places & one.attrib.keys():
            one.attrib[key] = pattern.sub(lambda m: m.group(1) + number.get(m.group(2), m.group(2)), one.attrib[key])


def _recolour(element: ElementTree.Element, *, fixed: bool) -> None:
    """Have the colours of an element and what is in it be the page's, but for what keeps its own."""
    if element.attrib.get("id") == _FIXED:
        del element.attrib["id"]
        element.attrib["fill"] = "#000"  # matplotlib leaves black out
        fixed = True
    for key in {"style", "fill", "stroke"} & element.attrib.keys():
        value = element.attrib[key].replace("'DejaVu Sans'", "var(--plot-font)")
        element.attrib[key] = value if fixed else _COLOUR.sub(r"var(--c-\1)", value)
    if element.tag == "image":
        element.attrib.pop("id", None)
    for child in element:
        _recolour(child, fixed=fixed)


def palette(figures: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return (name of the variable, colour on light ground, colour on dark ground) of all colours in figures."""
    used = {name for text in figures for name in re.findall(r"var\(--c-([0-9a-f]{6})\)", text)}
    return [(f"--c-{name}", f"#{name}", in_the_dark(f"#{name}")) for name in sorted(used)]


@functools.cache
def in_the_dark(colour: str) -> str:
    """Return a colour as it is on dark ground: greys turn round, white to the ground; others keep hue and order of
    lightness, and become as light as is needed to be seen.

    Computed in OKLab (Ottosson 2020).
    """
    if colour == "#ffffff":
        return GROUND
    lightness, a, b = _oklab(to_rgb(colour))
    low, high = _oklab(to_rgb(GROUND))[0], _oklab(to_rgb(INK))[0]
    if math.hypot(a, b) < _GREY:
        return _hex(low + (1 - lightness) ** 0.7 * (high - low), a, b)
    return _hex(0.55 + 0.4 * lightness, a, b)


def _hex(lightness: float, a: float, b: float) -> str:
    """Return the colour of OKLab, with as much of its chroma as sRGB has."""
    for share in (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        rgb = _srgb(lightness, share * a, share * b)
        if all(-1e-3 <= value <= 1.001 for value in rgb):
            break
    red, green, blue = (min(max(value, 0), 1) for value in rgb)
    return to_hex((red, green, blue))


def _oklab(rgb: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = ((v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4) for v in rgb)
    long = math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    middle = math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def _srgb(lightness: float, a: float, b: float) -> list[float]:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return [_gamma(value) for value in linear]


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def size_of(figure: Figure, dots: float) -> tuple[int, int]:
    """Return width and height of a figure in pixels of the page."""
    width, height = (round(inches * dots) for inches in figure.get_size_inches())
    return width, height
