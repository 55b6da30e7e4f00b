"""Reports: functions that write tables, figures and the page into a folder.

- ``explain``: pairs by their pixel groups or regions
- ``units``: pairs by hidden units
- ``refinement``: refined attacks
- ``dissection``: the concepts that units detect
- ``each_pair``: a loop over the pairs of a set
- ``page``: the HTML page
"""
