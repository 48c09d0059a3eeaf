"""GGUFs that are not what their manifests say, and manifests that are not theirs."""

from __future__ import annotations

import hashlib
from random import Random

from gguf import GGUFReader

from tests.fuzz.ggufs import EXAMPLE, copied, opened
from tests.support.fuzz import kinds
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged, other_json


def tensor_data(random: Random, place: Place) -> Case:
    """The data of a proven file: what is not what its manifest says is never a verified run."""
    model = copied(place, random, manifest=True)
    content = bytearray(model.read_bytes())
    tensor = random.choice(GGUFReader(model).tensors)
    for _ in range(random.choice((1, 1, 100))):
        content[int(tensor.data_offset) + random.randrange(int(tensor.n_bytes))] ^= 1 << random.randrange(8)
    model.write_bytes(content)
    out = place.out / "run"
    kind = random.random()
    if kind < 0.5:
        return Case(["orin-run", "eval", EXAMPLE, "--data", str(place.base / "data"), "--model", str(model), "--out",
        str(out), "--verify"],
                    must_refuse=True)  # fmt: skip
    return Case(
        ["orin-run", "eval", EXAMPLE, "--data", str(place.base / "data"), "--model", str(model), "--out", str(out)],
        writes=(out, place.state),
        fails="is not what|not the|differs|refuted",
        must_refuse=True,
    )


def manifests(random: Random, place: Place) -> Case:
    """The manifest beside a GGUF: another than the one that the file names is refused."""
    model = copied(place, random, manifest=True)
    path = place.inputs / "model.gguf.manifest.json"
    content = path.read_bytes()
    kind = random.random()
    if kind < 0.2:
        found = kinds.put(path, random)
        return opened(
            place,
            model,
            random,
            lambda _: None if found in {"gone", "swapped_name", "dangling", "link_chain"} else f"a {found} was taken",
        )
    other = (place.base / "phi3.gguf.manifest.json").read_bytes()
    path.write_bytes(other_json(content, random) if kind < 0.6 else damaged(content, other, random))
    if path.read_bytes() == content:
        return opened(place, model, random)
    return opened(place, model, random, lambda _: "a manifest that the file does not name was taken")


def stamped(random: Random, place: Place) -> Case:
    """A manifest of any content that the GGUF names, as another tool may have left both."""
    model = copied(place, random, manifest=True)
    path = place.inputs / "model.gguf.manifest.json"
    old = path.read_bytes()
    new = other_json(old, random) if random.random() < 0.7 else damaged(old, b"{}", random)
    digests = [hashlib.sha256(each).hexdigest().encode() for each in (old, new)]
    path.write_bytes(new)
    model.write_bytes(model.read_bytes().replace(digests[0], digests[1]))
    return opened(place, model, random)
