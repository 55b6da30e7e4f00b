"""Image regions: promotion and suppression by class activation maps.

- ``adversarial_cam``: :class:`captum_pse.AdversarialCAM`
- ``class_maps``: CAM, Grad-CAM and Grad-CAM++
- ``result``: the four maps of a pair; ``figure``: the figure of them
- ``interpretability``: the interpretability score of a perturbation on a map
"""
