"""Analyses of networks with their tables, figures and pages: what the command line and Python share.

The public names are listed in ``__init__.pyi`` and loaded when first used; :mod:`reports.figures` draws the tables.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
