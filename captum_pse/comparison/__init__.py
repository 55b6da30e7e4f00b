"""Compares this package's methods with other attribution methods.

- ``paired_attribution``: any method of Captum on both sides of a pair
- ``agreement``: how much methods agree; ``figure``: the figure of it
- ``side_by_side``: a figure of several methods on one pair
"""
