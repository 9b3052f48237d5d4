"""Robustness of a network: adversarial attacks, whether to believe them, and image corruptions.

attacks, square     what an attack does to a batch of images (losses, norms: its parts)
curves              accuracy against eps, fused over eps
masking             the audit: is the gradient that was followed worth following? (case, symptoms: its parts)
corruptions, ...    corrupted image sets and accuracy on them
comparison          paired tests between networks;  intervals: for one network
"""
