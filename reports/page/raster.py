"""Figures as small pictures: a palette of few colours instead of three bytes a pixel."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from reports.style import settings


def rasterise(figure: Figure, dpi: float) -> Image.Image:
    """Return the figure as RGB pixels."""
    with settings():
        canvas = FigureCanvasAgg(figure)
        before = figure.dpi
        figure.set_dpi(dpi)
        try:
            canvas.draw()
            return picture(canvas)
        finally:
            figure.set_dpi(before)


def picture(canvas: FigureCanvasAgg) -> Image.Image:
    """Return what is on the canvas as RGB pixels."""
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def palette_of(image: Image.Image, colours: int = 256) -> Image.Image:
    """Return the image in ``colours`` colours, the brightest of which is white: paper stays paper."""
    indexed = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    table = np.array(indexed.getpalette()).reshape(-1, 3)
    table[table.sum(1).argmax()] = 255
    indexed.putpalette(table.ravel().tolist())
    return indexed
