"""Hidden units: how they change under attack, what they detect, how to mask them.

- ``dissection_sensitivity``: :class:`captum_pse.DissectionSensitivity`
- ``result``: the units of one pair; ``sensitivity``: means over pairs
- ``norms``: the size of a unit's change as one number
- ``rankings``: the values by which units are ranked
- ``relation``: whether sensitive units are interpretable
- ``masking``: masks units; ``masked_copy``: a masked copy of a model
- ``masked_accuracy``: predictions with masked units, also under adaptive attacks
- ``masking_curves``: accuracy as more units are masked
- ``masking_test``: whether the masked units matter, or only their number
- ``hardening``: masking as a defence
- ``figure``: the figures
"""
