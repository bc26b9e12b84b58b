"""Docker's overlay2 graphdriver, as its package documentation describes it.

<home>/l/<26 characters> -> ../<id>/diff     short names, so that many fit one page of options
<home>/<id>/diff                             the layer: its upper directory
<home>/<id>/link                             its short name
<home>/<id>/lower                            l/A:l/B..., topmost first; only with a parent
<home>/<id>/work, merged                     work directory and mount point; only with a parent
"""

from graphdriver.overlay2.driver import Driver

__all__ = ["Driver"]
