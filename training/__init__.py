"""Training with learning rules that need no weight transport: configs and data in, run folders and checkpoints out.

config, rules, models, data     what is trained: one frozen config, and the parts it names
loop                            training, one network or many at once; run_folder, checkpoint: what it leaves
angles, gradient_angles         how well feedback follows the weights, and updates the gradient
store                           many runs: results by what they depend on, sweeps over them

The public names are listed in ``__init__.pyi`` and loaded when first used, so that a command line that needs a config
alone does not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
