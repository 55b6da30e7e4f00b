"""Other attribution methods beside this package's.

- ``paired_attribution``: any method of Captum on both sides of a pair
- ``agreement``: how far methods agree, and ``figure``: that as matrices
- ``side_by_side``: several methods on one pair
"""
