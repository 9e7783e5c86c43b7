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
