#!/usr/bin/env bash
# A Python with PyTorch and torchvision, for the peers in this folder: that of the reference outputs, with torchvision added.
# Prints the interpreter's path on its last line.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

python=$("$root/scripts/fixtures/setup.sh" | tee /dev/stderr | tail -1)
if ! "$python" -c 'import torchvision' 2>/dev/null; then
    "$python" -m pip install --disable-pip-version-check --quiet --no-deps torchvision==0.26.0 pillow==13.0.0 ||
        stop 1 "pip could not install torchvision (see above); run this again when that is mended"
fi
echo "$python"
