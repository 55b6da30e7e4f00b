"""What all figures are made of.

- ``figure``: the figure that every plot returns
- ``images``: the images of a pair as arrays
- ``panels``: maps, colour bars and headings
- ``styles``: colours and markers
"""
