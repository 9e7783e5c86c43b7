#!/usr/bin/env bash
# Makes libtorch available to this checkout as the link .libtorch, which .cargo/config.toml points at.
#   scripts/setup.sh [--cuda]   sets up what is missing; --cuda: with the CUDA libraries although no NVIDIA driver is seen here
#   scripts/setup.sh --check    prints what is there; changes nothing; exit 0 if ready to build, 1 if not
# Taken, in this order: the libtorch that $LIBTORCH names; what .libtorch already points at; the torch of the active Python;
# else the torch wheel in a folder of our own under the user's cache, made once for all checkouts.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ -z "${LIBTORCH-}" ] || LIBTORCH=$(realpath -m "$LIBTORCH")
cd "$root"
link=.libtorch
case ${1-} in
"" | --cuda | --check) mode=${1-} ;;
*) stop 2 "usage: scripts/setup.sh [--cuda | --check]" ;;
esac

# --- what is there -----------------------------------------------------------------------------------------------------

# torch_version FOLDER: its libtorch's version, or nothing.
torch_version() {
    local header=$1/include/torch/headeronly/version.h
    [ -f "$header" ] || header=$1/include/torch/csrc/api/include/torch/version.h
    [ ! -f "$header" ] || awk '/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $3; dot = "." } END { print v }' "$header"
}

# refusal FOLDER: why its libtorch cannot be used, in one sentence; nothing if it can.
refusal() {
    local version needs
    version=$(torch_version "$1")
    if [ ! -f "$1/lib/libtorch_cpu.so" ]; then
        echo "there is no lib/libtorch_cpu.so in it"
    elif [ "$version" != $torch_wanted ]; then
        echo "it is version ${version:-unknown}, but $torch_wanted is needed"
    elif ! needs=$(ldd "$1/lib/libtorch_cpu.so" 2>&1); then
        echo "its lib/libtorch_cpu.so is damaged"
    elif grep -q 'not found' <<<"$needs"; then
        echo "libraries that it needs are not found: $(awk '/not found/ { print $1 }' <<<"$needs" | xargs)"
    fi
}

# python_torch: the folder of the active Python's torch, if its version is the wanted one. Importing torch would take seconds.
python_torch() {
    python3 - $torch_wanted 2>/dev/null <<'PY' || true
import importlib.util, pathlib, re, sys
spec = importlib.util.find_spec("torch")
if spec and spec.origin:
    folder = pathlib.Path(spec.origin).parent
    version = re.search(r"__version__ = '([^'+]+)", (folder / "version.py").read_text())
    if version and version[1] == sys.argv[1]:
        print(folder)
PY
}

driver() { nvidia-smi -L &>/dev/null || PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep 'libcuda\.so\.1 ' >/dev/null; }

# cuda_ready FOLDER: whether its CUDA libraries are there with all that they need from other packages.
cuda_ready() {
    [ -f "$1/lib/libtorch_cuda.so" ] && ! ldd "$1/lib/libtorch_cuda.so" | grep -v 'libcuda\.so' | grep 'not found' >/dev/null
}

# wheel_folder VENV: the torch folder in it, or nothing.
wheel_folder() { find "$1"/lib/python3*/site-packages/torch -maxdepth 0 2>/dev/null || true; }

# usable FOLDER: prints it if set-up can take it.
usable() { [ -e "$1" ] && [ -z "$(refusal "$1")" ] && { ! $with_cuda || cuda_ready "$1"; } && echo "$1"; }

# found: the libtorch that set-up takes without installing one; nothing if it has to install.
found() {
    if [ -n "${LIBTORCH-}" ]; then
        echo "$LIBTORCH"
    else
        usable "$link" || usable "$(python_torch)" || usable "$(wheel_folder "$wheel")" || true
    fi
}

# problems: what set-up and build need and this machine lacks, a line each with its remedy.
problems() {
    local wanted have why
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null || ! have=$(rustc --version 2>/dev/null | cut -d' ' -f2); then
        echo "Rust is missing: install it from https://rustup.rs, then open a new terminal."
    elif [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -1)" != "$wanted" ]; then
        echo "Rust $have is too old, $wanted is needed: run \`rustup update stable\`."
    fi
    if ! echo '#include <string>' | "${CXX:-c++}" -std=c++17 -x c++ -fsyntax-only - 2>/dev/null; then
        echo "A C++17 compiler is missing (tried '${CXX:-c++}'): install g++ (Debian, Ubuntu: \`apt install g++\`; Fedora: \`dnf install gcc-c++\`) or name yours in CXX."
    fi
    if [ ! -d target ] && [ -z "${CARGO_TARGET_DIR-}" ] && [ "$(free_gb .)" -lt 3 ]; then
        echo "The build needs 3 GB and $root has $(free_gb .) GB free: make room there, or clone to another disk."
    fi
    if [ -e "$link" ] && [ ! -L "$link" ]; then
        echo "$root/$link is a folder of its own: move it elsewhere and name it in LIBTORCH, so that $link can be a link."
    fi
    if [ -z "$libtorch" ]; then
        install_problems
    else
        why=$(refusal "$libtorch")
        [ -z "$why" ] || echo "The libtorch that LIBTORCH names, $libtorch, cannot be used: $why; point LIBTORCH at a libtorch $torch_wanted, or unset it to have one installed."
    fi
}

install_problems() {
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "Only Linux on x86-64 is set up by this script, and this is $(uname -sm): set LIBTORCH to a libtorch $torch_wanted of your own (untested)."
        return
    fi
    if ! command -v python3 >/dev/null; then
        echo "python3 is missing, with which libtorch is fetched: install Python 3.10 to 3.14 (Debian, Ubuntu: \`apt install python3 python3-venv\`)."
    elif ! python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))'; then
        echo "$(python3 --version) cannot install torch $torch_wanted: put Python 3.10 to 3.14 first in PATH as python3."
    elif ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        echo "Python's venv module is missing: install it (Debian, Ubuntu: \`apt install python3-venv\`)."
    fi
    if [ "$(free_gb "$cache")" -lt "$install_gb" ]; then
        echo "libtorch needs $install_gb GB while it is installed and $cache has $(free_gb "$cache") GB free: make room, or set XDG_CACHE_HOME to a folder on another disk."
    fi
}

# --- --check -----------------------------------------------------------------------------------------------------------

check() {
    local name sets="" version
    say() { printf '%-10s %s\n' "$@"; }
    say Rust "$(rustc --version 2>/dev/null || echo missing)"
    say compiler "$("${CXX:-c++}" --version 2>/dev/null | head -1 | grep . || echo missing)"
    if [ -e "$libtorch" ]; then
        version=$(torch_version "$libtorch")
        say libtorch "${version:-unknown version} in $(realpath "$libtorch")${LIBTORCH:+ (from LIBTORCH)}"
    else
        say libtorch missing
    fi
    if ! driver; then
        say CUDA "no: no NVIDIA driver is seen here (neither nvidia-smi nor libcuda.so.1)"
    elif [ -n "$libtorch" ] && cuda_ready "$libtorch"; then
        say CUDA "yes: $(nvidia-smi -L 2>/dev/null | head -1 | sed 's/ (UUID.*//' | grep . || echo 'an NVIDIA driver is there')"
    else
        say CUDA "no: there is an NVIDIA driver, but no libtorch with all CUDA libraries; run scripts/setup.sh"
    fi
    say threads "$(nproc)"
    for name in "$data_root"/*/; do
        [ ! -d "$name" ] || sets+="$(basename "$name") "
    done
    say data "${sets:-none yet }in $data_root"
    if [ -n "$trouble" ]; then
        printf 'not ready:\n%s\n' "$trouble"
    elif [ ! -e "$link" ] || [ "$(realpath "$link")" != "$(realpath "$libtorch")" ]; then
        echo "not ready: run scripts/setup.sh, and $link will name ${libtorch:-a libtorch that it installs}"
    else
        echo ready
        return
    fi
    exit 1
}

# --- set-up ------------------------------------------------------------------------------------------------------------

# install: the torch wheel in a folder of its own. Made beside and renamed, so that a cut-off set-up leaves nothing half done.
install() {
    part=$wheel.part # not local: the trap reads it
    mkdir -p "$cache" || stop 2 "cannot create $cache; set XDG_CACHE_HOME to a folder that you may write to"
    exec 9>"$wheel.lock"
    flock -n 9 || { echo "another set-up is installing libtorch; waiting for it"; flock 9; }
    if [ -z "$(wheel_folder "$wheel")" ]; then
        rm -rf "$part"
        trap 'rm -rf "$part"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        echo "installing libtorch $torch_wanted into $wheel (once for all checkouts)"
        python3 -m venv "$part" || stop 2 "python3 -m venv $part failed (see above); install Python's venv module"
        # Unpacking on the cache's own disk keeps a small /tmp out of it.
        mkdir "$part/tmp"
        pip() { TMPDIR=$part/tmp "$part/bin/python" -m pip --disable-pip-version-check --no-input install "$@"; }
        # The smallest package goes first: whether the network answers is known in seconds.
        pip --quiet --retries 1 --timeout 15 --no-deps 'nvidia-cuda-runtime==13.0.*' ||
            stop 1 "pip could not fetch a package (see above): check the network, or the proxy in HTTPS_PROXY, and run this again"
        if $with_cuda; then
            pip "torch==$torch_wanted"
        else
            # libtorch_cpu.so is linked with these two even where CUDA is not used; the rest of CUDA (3 GB) can stay away.
            pip --no-deps "torch==$torch_wanted" 'nvidia-cuda-cupti==13.0.*'
        fi || stop 1 "pip could not install torch $torch_wanted (see above); run this again when that is mended"
        rm -rf "$part/tmp"
        mv -T "$part" "$wheel"
        trap - EXIT INT TERM
    fi
    exec 9>&-
    libtorch=$(wheel_folder "$wheel")
    why=$(refusal "$libtorch")
    [ -z "$why" ] || stop 1 "the libtorch in $libtorch cannot be used: $why; delete $wheel and run this again"
}

with_cuda=false
if [ "$mode" = --cuda ] || driver; then with_cuda=true; fi
wheel=$cache/torch-$torch_wanted install_gb=3
if $with_cuda; then wheel+=-cuda install_gb=12; fi

libtorch=$(found)
trouble=$(problems)
if [ "$mode" = --check ]; then
    check
    exit
fi
if [ -n "$trouble" ]; then
    echo "error: ${trouble//$'\n'/$'\n'error: }" >&2
    exit 2
fi
[ -n "$libtorch" ] || install

target=$(realpath "$libtorch")
if [ "$(realpath -q "$link" || true)" != "$target" ]; then
    # Renamed into place, so that a build beside us sees the old link or the new one.
    ln -sfn "$target" "$link.new$$"
    mv -fT "$link.new$$" "$link"
    echo "libtorch $torch_wanted: $target"
fi
