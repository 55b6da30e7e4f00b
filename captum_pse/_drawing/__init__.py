"""Shared by all figures.

- ``figure``: the figure class that every plot returns
- ``images``: the images of a pair as arrays
- ``panels``: maps, colour bars and headings
- ``styles``: colours and markers
"""
