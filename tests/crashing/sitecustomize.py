"""A Python that finds this folder dies where it opens a file of a certain name, as by a fault in a library."""

import os
import signal
import sys


def _look(event, arguments):
    if event == "open" and "crashes-decoders" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGSEGV)


sys.addaudithook(_look)
