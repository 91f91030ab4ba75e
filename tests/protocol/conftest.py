from __future__ import annotations

import importlib
import sys

# py_ecc, which eth-account brings along, raises the recursion limit of the whole process a hundredfold. The bound on
# how deep a message may be nested is the interpreter's own, so the tests hold it where every installation has it.
_limit = sys.getrecursionlimit()
importlib.import_module("eth_account")
sys.setrecursionlimit(_limit)
