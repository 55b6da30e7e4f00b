"""Groups of features: feature masks, and what the groups do.

- ``masks``: makers of feature masks
- ``groups``: the groups that a mask defines
- ``types``: promotion-dominated, suppression-dominated, balanced or inactive
"""
