"""Groups of features: feature masks, groups and their types.

- ``masks``: makes feature masks
- ``groups``: the groups that a mask defines
- ``types``: promotion-dominated, suppression-dominated, balanced or inactive
"""
