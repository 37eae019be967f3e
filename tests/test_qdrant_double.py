"""The double that other tests write to must itself behave like a server."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from retrieval.config import parse_config
from retrieval.stores import open_store
from tests.qdrant_double import QdrantDouble, qdrant_double, qdrant_process

__all__ = ["qdrant_double"]
DENSE = {"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)}
BM25 = {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)}


def point(number: int, x: float, y: float) -> models.PointStruct:
    sparse = models.SparseVector(indices=[number], values=[1.5])
    return models.PointStruct(id=number, vector={"dense": [x, y], "bm25": sparse}, payload={"n": number, "none": None})


@pytest.fixture
def client(qdrant_double: QdrantDouble) -> Iterator[QdrantClient]:
    with closing(QdrantClient(url=qdrant_double.url, check_compatibility=False)) as client:
        client.create_collection("books", DENSE, sparse_vectors_config=BM25, shard_number=3)
        client.upsert("books", [point(1, 3, 4), point(2, 4, 3)], wait=True)
        yield client


def test_points_come_back_normalised_with_all_of_their_payload(client: QdrantClient) -> None:
    (found,) = client.retrieve("books", [1], with_vectors=True)
    assert found.payload == {"n": 1, "none": None}
    assert found.vector == {
        "dense": pytest.approx([0.6, 0.8]),
        "bm25": models.SparseVector(indices=[1], values=[1.5]),
    }
    assert client.get_collection("books").config.params.shard_number == 3


def test_a_bad_point_refuses_the_batch_and_nothing_is_written(client: QdrantClient) -> None:
    wrong = models.PointStruct(id=4, vector={"dense": [1.0, 2.0, 3.0]}, payload={})
    with pytest.raises(UnexpectedResponse, match="400"):
        client.upsert("books", [point(3, 1, 0), wrong])
    assert client.count("books").count == 2


def test_unknown_collections_are_404(client: QdrantClient) -> None:
    with pytest.raises(UnexpectedResponse, match="404"):
        client.count("films")


def test_an_alias_stands_for_a_collection_and_goes_with_it(client: QdrantClient) -> None:
    alias = models.CreateAlias(collection_name="books", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    assert client.count("live").count == 2
    client.delete_collection("books")
    assert not client.collection_exists("live")
    assert client.get_aliases().aliases == []


def test_a_snapshot_brings_back_what_was_there(client: QdrantClient, qdrant_double: QdrantDouble) -> None:
    snapshot = client.create_snapshot("books")
    assert snapshot is not None
    client.delete("books", [1], wait=True)
    client.update_collection("books", metadata={"later": 1})
    location = f"{qdrant_double.url}/collections/books/snapshots/{snapshot.name}"
    client.recover_snapshot("books", location, checksum=snapshot.checksum)
    assert client.count("books").count == 2
    assert client.get_collection("books").config.metadata == {}
    assert [found.name for found in client.list_snapshots("books")] == [snapshot.name]
    with pytest.raises(UnexpectedResponse, match="checksum mismatch"):
        client.recover_snapshot("books", location, checksum="0" * 64)


def test_a_downloaded_snapshot_can_be_uploaded_elsewhere(
    client: QdrantClient, qdrant_double: QdrantDouble, tmp_path: Path
) -> None:
    name = client.create_snapshot("books").name  # type: ignore[union-attr]
    data = urllib.request.urlopen(f"{qdrant_double.url}/collections/books/snapshots/{name}").read()
    body = b'--x\r\nContent-Disposition: form-data; name="snapshot"; filename="s"\r\n\r\n' + data + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    url = f"{qdrant_double.url}/collections/copy/snapshots/upload"
    urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST")).close()
    assert client.count("copy").count == 2
    (tmp_path / "s").write_bytes(b"no snapshot")
    with pytest.raises(UnexpectedResponse, match="damaged"):
        client.recover_snapshot("copy", (tmp_path / "s").as_uri())


def test_a_fault_answers_for_the_server(client: QdrantClient, qdrant_double: QdrantDouble) -> None:
    qdrant_double.fail("PUT .*/points$", status=503, skip=1)
    client.upsert("books", [point(3, 1, 0)])
    with pytest.raises(UnexpectedResponse, match="503"):
        client.upsert("books", [point(4, 1, 0)])
    assert client.count("books").count == 3


def test_a_lost_answer_has_been_applied(client: QdrantClient, qdrant_double: QdrantDouble) -> None:
    qdrant_double.fail("PUT .*/points$", status=0, applied=True)
    with pytest.raises(Exception, match="disconnected"):
        client.upsert("books", [point(3, 1, 0)])
    assert client.count("books").count == 3
    assert qdrant_double.count("PUT .*/points$") == 2


def test_several_processes_and_threads_write_at_once() -> None:
    with qdrant_process() as (url, _):
        config = parse_config({"store": {"kind": "server", "url": url, "collection": "books"}})
        open_store(config, dim=2).close()

        def write(start: int) -> None:
            with closing(QdrantClient(url=url, check_compatibility=False)) as client:
                for number in range(start, start + 50):
                    client.upsert("books-g1", [point(number, 1, number)], wait=True)

        threads = [threading.Thread(target=write, args=(50 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with closing(open_store(config, dim=2)) as store:
            assert store.count() == 200
        seen = json.load(urllib.request.urlopen(f"{url}/_double"))["requests"]
        assert seen["PUT /collections/books-g1/points"] == 200
