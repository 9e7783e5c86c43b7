# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that read this
# What several scripts share; read with `source`, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data_root=${REPRO_DATA:-$root/data}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/repro
torch_wanted=2.11.0

# stop CODE TEXT: 2 when the user can mend it, 1 for the rest (network, disk).
stop() {
    local code=$1
    shift
    echo "error: $*" >&2
    exit "$code"
}

# free_gb FOLDER: whole gigabytes free there, or where its nearest existing parent is.
free_gb() {
    local folder=$1
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    echo $(($(df -Pk "$folder" | awk 'NR == 2 { print $4 }') / 1024 / 1024))
}

# papers: the crates that train, which have experiments; is_paper NAME: whether this is one.
papers() { (cd "$root/experiments" && printf '%s\n' */smoke.yaml | xargs dirname | xargs); }
is_paper() { [ -n "$1" ] && [[ " $(papers) " == *" $1 "* ]]; }

# data_sets ARGUMENT…: the set named by data=… or data.name=…, else by the config (`data/NAME` in its defaults, or its own `name:`
# under `data:`), if scripts/get_data.sh knows it. The binary reads the config in earnest, and says what is wrong with it.
data_sets() {
    local config="" chosen="" before="" argument
    for argument in "$@"; do
        case $argument in
        data=* | data.name=*) chosen=${argument#*=} ;;
        # The user's own folder: nothing to fetch.
        data.root=*) return ;;
        --config=*) config=${argument#*=} ;;
        *) [ "$before" != --config ] || config=$argument ;;
        esac
        before=$argument
    done
    if [ -z "$chosen" ] && [ -f "$config" ]; then
        chosen=$(sed -n '/^defaults:/,/^[^ -]/ s/.*data\/\([a-z0-9_]*\).*/\1/p; /^data:/,/^[^ ]/ s/^ \+name: *\([a-z0-9_]*\).*/\1/p' \
            "$config" | tail -1)
    fi
    # Its digits are MNIST's.
    [ "$chosen" != canvases ] || chosen=mnist
    [[ " $("$root/scripts/get_data.sh" --list) " != *" $chosen "* ]] || echo "$chosen"
}
