"""Gather the photographs under ``models/photos`` from scikit-image and from Debian's gcompris-qt-data.

Usage: ``python models/build_photos.py RCC_FOLDER --out models/photos``

RCC_FOLDER is ``/usr/share/gcompris-qt/rcc`` of the Debian package ``gcompris-qt-data`` 3.1-2. Every photograph is CC0
or in the public domain by the word of its package: scikit-image states it in each function's docstring; GCompris in
the README beside each picture in its source (``src/activities/*/resource/**/README``); for the two objects, Debian in
the package's ``copyright`` file. Run it to make the files again and to print their rows of ``models/README.md``.
"""

from __future__ import annotations

import argparse
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SHORT_SIDE, QUALITY = 448, 88


@dataclass(frozen=True)
class Photo:
    """One photograph: where its bytes come from, and whose it is."""

    name: str
    resource: str
    """Path inside the GCompris resources, or the name of a scikit-image sample."""
    author: str
    licence: str
    page: str
    """Where the package says that it comes from."""


OBJECTS, FARM, WORLD, ERASE = (
    "categorization/resource/images",
    "explore_farm_animals/resource/animals",
    "explore_world_animals/resource/animals",
    "erase/resource",
)
COMMONS = "https://commons.wikimedia.org/wiki/File:"
PHOTOS = (
    Photo("astronaut", "astronaut", "NASA", "public domain", "https://flic.kr/p/r9qvLn"),
    Photo("chelsea", "chelsea", "Stefan van der Walt", "CC0", "scikit-image"),
    Photo("coffee", "coffee", "Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0", "scikit-image"),
    Photo(
        "rocket",
        "rocket",
        "SpaceX",
        "public domain",
        "https://www.flickr.com/photos/spacexphotos/16511594820",
    ),
    Photo("bison", f"{WORLD}/bison.webp", "Kurt Kaiser", "public domain", f"{COMMONS}American_Bison_9.jpg"),
    Photo("crab", f"{ERASE}/crab.webp", "Nosferattus", "CC0", f"{COMMONS}Sally_Lightfoot_Crab_2019.jpg"),
    Photo(
        "frying-pan",
        f"{OBJECTS}/others/pan.webp",
        "Suricata",
        "public domain",
        f"{COMMONS}Pfanne_(Gusseisen).jpg",
    ),
    Photo(
        "german-shepherd",
        f"{FARM}/dog.webp",
        "Hans Kemperman",
        "public domain",
        f"{COMMONS}German-shepherd-4040871920._(2).jpg",
    ),
    Photo(
        "hens", f"{FARM}/chicken.webp", "Tranquilles", "public domain", f"{COMMONS}Chickens_at_Tranquilles_B%26B.JPG"
    ),
    Photo("jaguars", f"{WORLD}/jaguar.webp", "Frieda Bredesen", "public domain", f"{COMMONS}Two_Jaguar_Sisters.jpg"),
    Photo("koala", f"{WORLD}/koala.webp", "BurningWell", "public domain", f"{COMMONS}Koala_Perth_Zoo.jpg"),
    Photo(
        "komodo-dragon",
        f"{WORLD}/dragon.webp",
        "TimVickers",
        "public domain",
        f"{COMMONS}Varanus_komodoensis_(5).jpg",
    ),
    Photo("lemurs", f"{WORLD}/lemur.webp", "Mathias Appel", "public domain", f"{COMMONS}Lemur_(37122852696).jpg"),
    Photo(
        "macaw",
        f"{WORLD}/scarlet_macaw.webp",
        "Dcoetzee",
        "public domain",
        f"{COMMONS}Scarlet_macaw_at_Cougar_Mountain_Zoological_Park.jpg",
    ),
    Photo(
        "polar-bear",
        f"{WORLD}/polar_bear.webp",
        "anonymous",
        "public domain",
        f"{COMMONS}Churchill_Wildlife_Management_Area_polar_bear30.JPG",
    ),
    Photo("red-panda", f"{ERASE}/red_panda.webp", "Mathias Appel", "CC0", f"{COMMONS}Red_Panda_(30324056733).jpg"),
    Photo("sheep", f"{FARM}/sheep.webp", "Rob Mitchell", "public domain", f"{COMMONS}Sheep_(33625876592).jpg"),
    Photo(
        "solar-panels",
        f"{OBJECTS}/renewable/solar4.webp",
        "ENERGY.GOV",
        "public domain",
        f"{COMMONS}Hybrid_Solar_Energy_System.jpg",
    ),
)


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Paths and contents of the files in one of Qt's binary resource collections (``.rcc``, format version 2 or 3)."""
    data = path.read_bytes()
    magic, version, tree, contents, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres" or version < 2:
        raise SystemExit(f"{path}: not a Qt resource collection")

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        # An entry has 22 bytes: name, flags (1 zlib, 2 folder), then children or place of the content, then a date.
        name_at, flags, first, second = struct.unpack_from(">IHII", data, tree + 22 * index)
        length = struct.unpack_from(">H", data, names + name_at)[0] if index else 0
        start = names + name_at + 6
        here = f"{folder}/{data[start : start + 2 * length].decode('utf-16-be')}" if index else folder
        if flags & 2:
            for child in range(second, second + first):
                yield from walk(child, here)
            return
        (size,) = struct.unpack_from(">I", data, contents + second)
        content = data[contents + second + 4 : contents + second + 4 + size]
        yield here, zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def open_photo(photo: Photo, folder: Path) -> Image.Image:
    """Open the photograph as its package has it."""
    if "/" not in photo.resource:
        from skimage import data

        return Image.fromarray(getattr(data, photo.resource)())
    collection = folder / f"{photo.resource.split('/', 1)[0]}.rcc"
    for path, content in read_resources(collection):
        if path.endswith(f"/{photo.resource}"):
            return Image.open(io.BytesIO(content))
    raise SystemExit(f"{collection}: no {photo.resource}")


def main() -> None:
    """Write every photograph and print the table of their sources."""
    parser = argparse.ArgumentParser(description="Gather the embedded photographs.")
    parser.add_argument("folder", type=Path, help="folder of GCompris' .rcc files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "photos")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for photo in PHOTOS:
        image = open_photo(photo, options.folder).convert("RGB")
        reduction = min(1.0, SHORT_SIDE / min(image.size))
        if reduction < 1:
            image = image.resize([round(side * reduction) for side in image.size], Image.Resampling.LANCZOS)
        image.save(options.out / f"{photo.name}.jpg", quality=QUALITY, optimize=True)
        package = "gcompris-qt-data 3.1-2" if "/" in photo.resource else "scikit-image 0.26.0"
        print(f"| `photos/{photo.name}.jpg` | {photo.author} | {photo.licence} | {package} | {photo.page} |")


if __name__ == "__main__":
    main()
