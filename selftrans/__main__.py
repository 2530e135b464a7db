"""``python -m selftrans``, which works without installing anything."""

import sys

from selftrans.warm import ask

code = ask(sys.argv[1:])
if code is None:
    from selftrans.commands import main

    code = main()
sys.exit(code)
