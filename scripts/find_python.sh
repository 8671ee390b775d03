#!/bin/sh
# Print the newest Python here that can make the virtual environment. One argument: the only candidate.
# note: a name on the path proves nothing (version managers leave stubs), so each candidate is run.
for python in ${1:-python3.13 python3.12 python3.11 python3}; do
    "$python" - 2>/dev/null <<'END' && exit 0
import sys
import ensurepip, venv
assert (3, 11) <= sys.version_info[:2] <= (3, 13)
print(sys.executable)
END
done
cat >&2 <<END
No usable Python: expected 3.11, 3.12 or 3.13 with its venv module, tried ${1:-python3.13, python3.12, python3.11 and python3}.
On Debian:  apt-get install make python3-venv
Elsewhere:  make PYTHON=/path/to/python3.12 ...
END
exit 1
