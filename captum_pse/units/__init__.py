"""Hidden units: how far they change under attack, what they detect, masking them.

- ``dissection_sensitivity``: :class:`captum_pse.DissectionSensitivity`
- ``result``: the units of one pair; ``sensitivity``: means over pairs
- ``norms``: the change of a unit as one number
- ``rankings``: what units are ranked by
- ``relation``: whether sensitive units are interpretable
- ``masking``: masks units; ``masking_curves``: accuracy as more are masked
- ``hardening``: masking as a defence
- ``figure``: the figures
"""
