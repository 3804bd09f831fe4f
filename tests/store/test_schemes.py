"""gs:// and az://: what obstore sends to the stores of Google and Azure, as far as servers run here.

gs:// goes to the server of S3, which speaks nearly the same; az:// to Azurite (npm), if it is installed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from affectdata import api
from affectdata.errors import IntegrityError, ManifestError
from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import open_release
from affectdata.store.published import publish_folder
from tests.buckets import Buckets as Server
from tests.store.test_objects import files_of, upload

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.xdist_group("bucket")]
_ACCOUNT = "devstoreaccount1"
_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # of Azurite
)


@pytest.fixture
def gs(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An address in a bucket of the server, in the dialect of Google."""
    account = {"gcs_base_url": server.address, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    return "gs://bucket/lab"


@pytest.fixture
def az(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An address in a container of Azurite."""
    pytest.importorskip("obstore", reason="the extra `remote` is not installed")
    program = shutil.which("azurite-blob")
    if not program:
        pytest.skip("no azurite-blob on the PATH: npm install -g azurite")
    options = ("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--blobPort", "0")
    process = subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout
    line = next(line for line in process.stdout if "successfully listens" in line)
    endpoint = f"{line.split()[-1]}/{_ACCOUNT}"
    for name, value in {"NAME": _ACCOUNT, "KEY": _KEY}.items():
        monkeypatch.setenv(f"AZURE_STORAGE_ACCOUNT_{name}", value)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", endpoint)
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    monkeypatch.setenv("AFFECTDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    make_container(endpoint, "lab")
    yield "az://lab/x"
    process.terminate()
    process.wait(30)
    process.stdout.close()


def make_container(endpoint: str, name: str) -> None:
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    kind = "application/octet-stream"
    lines = [f"{key}:{value}" for key, value in headers.items()]
    lines += [f"/{_ACCOUNT}/{_ACCOUNT}/{name}", "restype:container"]
    text = "\n".join(["PUT", *[""] * 4, kind, *[""] * 6, *lines])
    signature = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
    url = f"{endpoint}/{name}?restype=container"
    request = urllib.request.Request(url, b"", {**headers, "Content-Type": kind}, method="PUT")
    urllib.request.urlopen(request).close()


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_sources_releases_and_manifests_are_as_on_disk(
    scheme: str, request: pytest.FixtureRequest, small_gaped: Path, tmp_path: Path
) -> None:
    address = request.getfixturevalue(scheme)
    local = api.ingest(small_gaped, out=tmp_path / "local")
    remote = api.ingest(upload(small_gaped, f"{address}/gaped"), out=tmp_path / "remote")
    assert remote.path.read_bytes() == local.path.read_bytes() and remote.counts == local.counts
    release = api.balance("valence_bins", manifest=[local.path], out=tmp_path / "releases").release.path
    other = tmp_path / "other" / release.name  # made at another time
    shutil.copytree(release, other)
    info = json.loads((release / "release.json").read_text())
    (other / "release.json").write_text(json.dumps({**info, "created": "2001-01-01T00:00:00+00:00"}))
    found: list[bool] = []
    writers = [
        threading.Thread(target=lambda each=each: found.append(api.publish(each, f"{address}/sets")[1]))
        for each in (release, other)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(found) == [False, True]
    published = f"{address}/sets/{release.name}"
    assert api.verify(published).is_sound
    assert files_of(open_release(published).path) in (files_of(release), files_of(other))
    (other / "release.json").write_text(json.dumps({**info, "originals": 1}))
    with pytest.raises(IntegrityError, match="something else was published"):
        publish_folder(other, "release.json", published)
    with pytest.raises(ManifestError, match="not a finished release"):
        open_release(f"{address}/none")
    manifest, is_new = api.publish(local.path, f"{address}/manifests")
    assert is_new and load_manifest(manifest).path.read_bytes() == local.path.read_bytes()
