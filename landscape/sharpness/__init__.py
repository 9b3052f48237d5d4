"""Sharpness: how much the loss rises around a minimum, by measures that a rescaling of layers changes and by measures
that it does not.

A network with positively homogeneous activations computes the same function when a layer is multiplied by c and the
next one by 1/c, while trace and largest eigenvalue of its Hessian change by any factor (Dinh et al. 2017). What each
measure is, and what leaves it as it is, stands in ``docs/sharpness.md``.
"""
