"""What commands write into a folder: tables, figures and the page.

- ``explain``: pixel groups and regions
- ``units``: hidden units
- ``refinement``: refined attacks
- ``dissection``: what units detect
- ``each_pair``: pair by pair
- ``page``: the HTML page
"""
