"""One file a command: ``HELP``, ``add_arguments(parser)`` and ``run(args)``.

Nothing heavy (torch, numpy, pandas, matplotlib) is imported at module level, so that ``--help`` answers at once.
"""
