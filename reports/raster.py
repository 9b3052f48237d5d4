"""Figures as small pictures: a palette of few colours instead of three bytes a pixel."""

import base64
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from reports.style import settings

PAGE_DPI = 200  # of the pictures inside the page
SHOWN_DPI = 132  # pixels of the page per inch of a figure: its 7 point text is read as 13 pixels


def rasterise(figure: Figure, dpi: float) -> Image.Image:
    """Return the figure as RGB pixels."""
    buffer = io.BytesIO()
    with settings():
        figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
    return Image.open(buffer).convert("RGB")


def picture(canvas: FigureCanvasAgg) -> Image.Image:
    """Return what is on the canvas as RGB pixels."""
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def png_uri(image: Image.Image) -> str:
    """Return the image as a ``data:`` address of a PNG of few colours."""
    buffer = io.BytesIO()
    palette_of(image).save(buffer, format="PNG", optimize=True)
    return data_uri("png", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return an image file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def palette_of(image: Image.Image, colours: int = 256) -> Image.Image:
    """Return the image in ``colours`` colours, the brightest of which is white: paper stays paper."""
    indexed = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    table = np.array(indexed.getpalette()).reshape(-1, 3)
    table[table.sum(1).argmax()] = 255
    indexed.putpalette(table.ravel().tolist())
    return indexed
