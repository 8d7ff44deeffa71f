"""For commands that tests start: curves take longer to draw than their small runs, so there is no matplotlib."""

import sys

sys.modules["matplotlib"] = None
