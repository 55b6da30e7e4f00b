"""Image regions, by class activation maps.

- ``adversarial_cam``: :class:`captum_pse.AdversarialCAM`
- ``class_maps``: one function for each kind of map
- ``result``: the four maps of a pair, and ``figure``: as a figure
- ``interpretability``: how much of a perturbation lies inside a map's mask
"""
