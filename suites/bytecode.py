"""A pytest plugin: what pytest compiles is kept for the next process, whatever $PYTHONDONTWRITEBYTECODE says.

To rewrite the assertions of all tests takes five seconds of a processor, in each worker of each run. For scripts/test;
the variable itself stays as it is, so the programs under test run as they would.
"""

import sys

sys.dont_write_bytecode = False
