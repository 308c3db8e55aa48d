"""Parameters of every kind arrive in a plugin as they do in a hard-coded router."""

import uuid
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Cookie, File, Form, Header, Path, Query, UploadFile
from pydantic import BaseModel, Field

from .twins import PluginSpec, Twins, make_twins, one

pytestmark = pytest.mark.anyio

router = APIRouter(prefix="/p", tags=["p"])


class Item(BaseModel):
    name: str = Field(min_length=2)
    price: float = 1.5
    tags: list[str] = []


class Filters(BaseModel):
    limit: int = Field(10, le=100)
    sort: str = "id"


@router.get("/path/{number}/{word}")
def path_parameters(number: int, word: Annotated[str, Path(max_length=5)]) -> dict[str, Any]:
    return {"number": number, "word": word}


@router.get("/int/{value:int}")
def int_convertor(value: int) -> int:
    return value


@router.get("/float/{value:float}")
def float_convertor(value: float) -> float:
    return value


@router.get("/uuid/{value:uuid}")
def uuid_convertor(value: uuid.UUID) -> str:
    return str(value)


@router.get("/files/{path:path}")
def path_convertor(path: str) -> str:
    return path


@router.get("/files/{path:path}/meta")
def after_path(path: str) -> str:
    return f"meta of {path}"


@router.get("/mixed-{part}.json")
def part_of_segment(part: str) -> str:
    return part


@router.get("/query")
def query(q: str, many: Annotated[list[int], Query()] = [], flag: bool = False) -> dict[str, Any]:  # noqa: B006
    return {"q": q, "many": many, "flag": flag}


@router.get("/model")
def query_model(filters: Annotated[Filters, Query()]) -> Filters:
    return filters


@router.get("/headers")
def headers(x_token: Annotated[str, Header()], session: Annotated[str | None, Cookie()] = None) -> list[str | None]:
    return [x_token, session]


@router.post("/body")
def body(item: Item) -> Item:
    return item


@router.put("/bodies/{item_id}")
def bodies(item_id: int, item: Item, note: Annotated[str, Body()]) -> dict[str, Any]:
    return {"id": item_id, "item": item, "note": note}


@router.post("/form")
def form(name: Annotated[str, Form()], age: Annotated[int, Form()] = 3) -> dict[str, Any]:
    return {"name": name, "age": age}


@router.post("/file")
async def file(upload: UploadFile, raw: Annotated[bytes, File()], note: Annotated[str, Form()] = "") -> list[Any]:
    return [upload.filename, (await upload.read()).decode(), len(raw), note]


@pytest.fixture
def twins() -> Twins:
    return make_twins(PluginSpec("params", one(router), tags=("p", "params")))


@pytest.mark.parametrize(
    "url",
    [
        "/path/3/abc",
        "/path/x/abcdefg",
        "/path/3",
        "/path/3/abc/",
        "/int/12",
        "/int/x",
        "/int/1%0A",
        "/float/1.25",
        "/uuid/6f0b39a0-4f5f-4f0e-8d0a-1d5e0a4b2c11",
        "/uuid/nope",
        "/files/a/b/c.txt",
        "/files/",
        "/files/a/meta",
        "/mixed-one.json",
        "/mixed-.json",
        "/mixed-a/b.json",
        "/query?q=1&many=1&many=2&flag=yes",
        "/query",
        "/query?q=a&many=x",
        "/query%0A?q=1",
        "/model?limit=5",
        "/model?limit=500&other=1",
        "/model/",
        "/path/%2F/abc",
        "/path/%C3%A9/ab",
        "",
        "/",
    ],
)
async def test_parameters_in_the_url(twins: Twins, url: str) -> None:
    """Path and query parameters are converted, refused and redirected alike."""
    await twins.ask("GET", "/api/p" + url)


async def test_headers_and_cookies(twins: Twins) -> None:
    """Header and cookie parameters arrive alike, present or missing."""
    answer = await twins.ask("GET", "/api/p/headers", headers={"X-Token": "t", "Cookie": "session=s"})
    assert answer.json() == ["t", "s"]
    assert (await twins.ask("GET", "/api/p/headers")).status_code == 422


@pytest.mark.parametrize(
    "options",
    [
        {"json": {"name": "ab", "tags": ["x"]}},
        {"json": {"name": "a"}},
        {"content": b"{nope", "headers": {"content-type": "application/json"}},
        {"content": b'{"name": "ab"}', "headers": {"content-type": "text/plain"}},
        {"content": b'{"name": "ab"}'},
        {},
    ],
)
async def test_bodies(twins: Twins, options: dict[str, Any]) -> None:
    """JSON bodies are read, refused and explained alike."""
    await twins.ask("POST", "/api/p/body", **options)
    await twins.ask("PUT", "/api/p/bodies/3", json={"item": options.get("json"), "note": "n"})


async def test_forms_and_files(twins: Twins) -> None:
    """Forms and uploads arrive alike."""
    assert (await twins.ask("POST", "/api/p/form", data={"name": "a", "age": "4"})).json() == {"name": "a", "age": 4}
    await twins.ask("POST", "/api/p/form", data={"age": "x"})
    multipart = {"upload": ("a.txt", b"hello"), "raw": ("b.bin", b"\0\1")}
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    content = b"".join(
        b'--cut\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), filename.encode(), value)
        for name, (filename, value) in multipart.items()
    )
    answer = await twins.ask("POST", "/api/p/file", content=content + b"--cut--\r\n", headers=headers)
    assert answer.json() == ["a.txt", "hello", 2, ""]
    await twins.ask("POST", "/api/p/file", content=b"--cut--\r\n", headers=headers)


async def test_document(twins: Twins) -> None:
    """Both documents describe the same parameters; the platform's tags are not repeated."""
    document = twins.compare_openapi()
    assert document["paths"]["/api/p/body"]["post"]["tags"] == ["p", "params"]
    assert "params__Item" in document["components"]["schemas"]
