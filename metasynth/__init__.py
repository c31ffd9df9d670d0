"""metasynth: learn how to make training data by differentiating through training.

Messages go to the loggers ``metasynth.*`` of the standard `logging`: those of ``metasynth.progress`` say how far work
is. Nothing is shown but by a handler of the program that uses the package; the command line has one.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.2.0"
