"""What the runs of these tests are about."""

EVIL = '</script><img src=x data-evil onerror="window.evil = 1"><b>"x\' & {{data}}'
"""A name that a careless page would take for markup, or for a place of its template."""

CLASSES = ["background", EVIL, "never seen"]
PALETTE = [[0, 0, 0], [230, 50, 50], [60, 165, 60]]
