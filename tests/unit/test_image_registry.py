"""What a registry gives out of an archive that `docker save` made."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from scenarios.image_registry import KIND, contents, registry


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """An archive with an image of two layers, one of them a link to a layer that an older Docker had put elsewhere."""
    layers = [b"first layer" * 99, b"second"]
    config = json.dumps({"rootfs": {"diff_ids": [digest(each) for each in layers]}}).encode()
    listed = [{"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}]
    files = {"a/layer.tar": layers[0], "elsewhere/layer.tar": layers[1], "c.json": config}
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, data in {**files, "manifest.json": json.dumps(listed).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../elsewhere/layer.tar"
        tar.addfile(link)
    return tmp_path / "image.tar", [config, *layers]


def test_a_manifest_describes_what_the_registry_gives_out(archive: tuple[Path, list[bytes]]) -> None:
    file, texts = archive
    with registry(file, "127.0.0.1") as (url, fetched):
        with urllib.request.urlopen(f"{url}/v2/labs/airflow/manifests/abc?ns=docker.io") as answer:
            text, kind, name = answer.read(), answer.headers["Content-Type"], answer.headers["Docker-Content-Digest"]
        assert (kind, name) == (f"{KIND}distribution.manifest.v2+json", digest(text))
        manifest = json.loads(text)
        described = [manifest["config"], *manifest["layers"]]
        assert [(each["digest"], each["size"]) for each in described] == [(digest(each), len(each)) for each in texts]
        for each, expected in zip(described, texts, strict=True):
            with urllib.request.urlopen(f"{url}/v2/labs/airflow/blobs/{each['digest']}") as answer:
                assert answer.read() == expected
        asked = urllib.request.Request(f"{url}/v2/labs/airflow/manifests/{name}", method="HEAD")
        assert urllib.request.urlopen(asked).headers["Content-Length"] == str(len(text))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/v2/labs/airflow/blobs/sha256:0")
        assert fetched == [name, *map(digest, texts)]
    assert [each.digest for each in contents(file)] == fetched
