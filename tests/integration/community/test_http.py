"""Requests of a jail to the web: httpx as ever, to granted hosts at public addresses, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.community.http.inside import HostTransport, async_http_client, http_client
from pixsim7_backend.community.http.policy import HttpLimits
from pixsim7_backend.community.http.service import HttpService
from pixsim7_backend.infrastructure.plugins._jail.inside.services import call
from tests.integration.community.halves import entered, grants_of
from tests.integration.community.web import PRIVATE, PUBLIC, certificate_for, serving

API, INTERNAL = "api.example.test", "internal.example.test"
Enter = Callable[..., httpx.Client]


class World:
    """Two servers with the same port, one out in the world and one inside, and who has which address."""

    def __init__(self, stack: ExitStack, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trust = certificate_for(API, INTERNAL, path=directory / "certificate.pem")
        self.public = stack.enter_context(serving(PUBLIC, 0, directory / "certificate.pem"))
        self.private = stack.enter_context(serving(PRIVATE, self.public.port, directory / "certificate.pem"))
        self.addresses: dict[str, list[list[str]]] = {API: [[PUBLIC]], INTERNAL: [[PRIVATE]]}
        self.asked: list[str] = []
        self._stack = stack
        self._directory = directory
        self._monkeypatch = monkeypatch

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Give the next answer for a name; the last one stays."""
        self.asked.append(host)
        answers = self.addresses.get(host) or []
        if not answers:
            raise OSError(host)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def url(self, path: str, host: str = API) -> str:
        """Return the URL of a path."""
        return f"https://{host}:{self.public.port}{path}"

    def enter(
        self, *granted: str, limits: HttpLimits | None = None, allow_plain: bool = False, **options: Any
    ) -> httpx.Client:
        """Return the client of a plugin in a jail; granted is the public server, unless something else is."""
        service = HttpService(
            limits, allow_plain=allow_plain, resolver=self.resolve, is_allowed=lambda each: each == PUBLIC,
            trust=self.trust,
        )  # fmt: skip
        grants = grants_of(*(granted or (f"net:{API}:{self.public.port}",)))
        self._stack.enter_context(
            entered([service], grants, self._directory, self._monkeypatch, install=lambda _: None)
        )
        return self._stack.enter_context(http_client(timeout=20, **options))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A little internet on loopback addresses."""
    with ExitStack() as stack:
        yield World(stack, tmp_path, monkeypatch)


def bare(world: World, **options: Any) -> httpx.Client:
    """Return a client as in process, which finds these names at their addresses."""

    class Local(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            address = asyncio.run(world.resolve(request.url.host, 0))[0]
            request.extensions["sni_hostname"] = request.url.host
            request.url = request.url.copy_with(host=address)
            return super().handle_request(request)

    return httpx.Client(transport=Local(verify=world.trust), trust_env=False, timeout=20, **options)


def test_a_request_is_answered_as_in_process(world: World) -> None:
    """Method, path, query, headers and body arrive; status, headers and body come back."""
    client = world.enter()
    sent = {"json": {"a": 1}, "headers": {"x-key": "k", "authorization": "Bearer t"}, "params": {"q": "ä b"}}
    with bare(world) as plain:
        expected = plain.post(world.url("/echo"), **sent)  # type: ignore[arg-type]
    answer = client.post(world.url("/echo"), **sent)  # type: ignore[arg-type]
    assert answer.status_code == expected.status_code
    theirs, ours = expected.json(), answer.json()
    for each in (theirs, ours):
        for name in ("accept-encoding", "connection"):
            each["headers"].pop(name, None)
    assert ours == theirs
    assert ours["headers"]["host"] == f"{API}:{world.public.port}"
    assert answer.headers["set-cookie"] == "a=b"


def test_bodies_are_streamed_in_both_directions(world: World) -> None:
    """However large they are, up to the limit, nobody holds them as a whole."""
    client = world.enter()
    answer = client.put(world.url("/echo"), content=(b"x" * 100_000 for _ in range(30)))
    assert answer.json()["body"] == 3_000_000
    with client.stream("GET", world.url("/large?size=3000000")) as large:
        sizes = [len(piece) for piece in large.iter_raw()]
    assert sum(sizes) == 3_000_000
    assert max(sizes) <= 256 << 10


def test_the_async_client_answers_as_well(world: World) -> None:
    """It is the same transport in its async form."""
    world.enter()

    async def use() -> list[Any]:
        async with async_http_client(timeout=20) as client:

            async def body() -> Any:
                yield b"a" * 300_000

            answer = await client.post(world.url("/echo"), content=body())
            return [answer.json()["body"], (await client.get(world.url("/packed"))).text == "unpacked " * 50_000]

    assert asyncio.run(use()) == [300_000, True]


def test_a_client_of_one_s_own_takes_the_transport(world: World) -> None:
    """``httpx.Client(transport=...)`` is all that is needed."""
    world.enter()
    with httpx.Client(transport=HostTransport(), trust_env=False) as client:
        assert client.get(world.url("/packed")).text == "unpacked " * 50_000


def test_an_answer_that_is_left_alone_ends_its_request(world: World) -> None:
    """Closing it is enough: the server is told that nobody reads on."""
    client = world.enter()
    with client.stream("GET", world.url("/endless")) as answer:
        next(answer.iter_raw())
    assert world.public.gave_up.wait(20)


def test_only_granted_hosts_are_asked(world: World) -> None:
    """Another name, another port, and what only looks like the name are refused before anything is resolved."""
    client = world.enter(f"net:{API}:{world.public.port}")
    port = world.public.port
    for url in (
        f"https://{INTERNAL}:{port}/secret", f"https://{API}/echo", f"https://{API}:1/echo",
        f"https://{API}.:{port}/echo", f"https://x.{API}:{port}/echo", f"https://{API}x:{port}/echo",
        f"https://{PUBLIC}:{port}/echo", f"https://2130706433:{port}/echo", f"https://[::1]:{port}/echo",
        f"https://{API}@{INTERNAL}:{port}/secret", f"https://{API}%00.evil.test:{port}/",
    ):  # fmt: skip
        with pytest.raises(httpx.ConnectError):
            client.get(url)
    assert world.asked == []
    assert world.public.seen == world.private.seen == []


def test_the_refusal_has_the_line_to_add(world: World) -> None:
    """Which permission, and that the operator must grant it."""
    client = world.enter()
    with pytest.raises(httpx.ConnectError, match=r'permissions=\["net:other.example.test"\]'):
        client.get("https://other.example.test/")


def test_a_name_of_a_private_address_is_not_asked(world: World) -> None:
    """Though it is granted: nor when only one of several addresses is private."""
    client = world.enter(f"net:{INTERNAL}:{world.public.port}")
    with bare(world) as plain:
        assert plain.get(world.url("/secret", INTERNAL)).text == "the secret of this network"
    seen = len(world.private.seen)
    for answer in ([PRIVATE], [PUBLIC, PRIVATE], ["nonsense"], []):
        world.addresses[INTERNAL] = [answer]
        with pytest.raises(httpx.ConnectError, match="not out in the world"):
            client.get(world.url("/secret", INTERNAL))
    assert len(world.private.seen) == seen


def test_http_without_encryption_is_the_operator_s_choice(world: World, tmp_path: Path) -> None:
    """Refused by default; other schemes always."""
    with serving(PUBLIC, 0, None) as plain:
        permission = f"net:{API}:{plain.port}"
        client = world.enter(permission)
        with pytest.raises(httpx.ConnectError, match="https only"):
            client.get(f"http://{API}:{plain.port}/echo")
        with pytest.raises(httpx.ConnectError, match="https only"):
            client.get(f"ftp://{API}:{plain.port}/echo")
        client = world.enter(permission, allow_plain=True)
        assert client.get(f"http://{API}:{plain.port}/echo").status_code == 200


def test_certificates_are_checked_against_the_name(world: World) -> None:
    """Not against the address, and not against what the plugin says."""
    world.addresses["other.example.test"] = [[PUBLIC]]
    client = world.enter(f"net:other.example.test:{world.public.port}")
    with pytest.raises(httpx.ConnectError, match="certificate is not valid"):
        client.get(world.url("/echo", "other.example.test"), headers={"host": API})
    assert world.public.seen == []


def test_headers_of_the_connection_are_the_host_s(world: World) -> None:
    """A plugin cannot send another Host, nor end or change the connection."""
    client = world.enter()
    headers = {
        "host": INTERNAL, "connection": "upgrade", "upgrade": "websocket", "te": "trailers", "expect": "100-continue",
        "proxy-authorization": "x", "accept-encoding": "br",
    }  # fmt: skip
    seen = client.get(world.url("/echo"), headers=headers).json()["headers"]
    assert seen["host"] == f"{API}:{world.public.port}"
    assert seen["accept-encoding"] == "gzip"
    assert not set(seen) & {"upgrade", "te", "expect", "proxy-authorization"}


@pytest.mark.parametrize("length", ["10", "3000", "x", "-1"])
def test_a_length_that_is_wrong_is_refused(world: World, length: str) -> None:
    """Nothing is sent that the server could take for a second request."""
    client = world.enter()
    with pytest.raises(httpx.ConnectError, match="Content-Length"):
        client.post(world.url("/echo"), content=b"x" * 100, headers={"content-length": length})
    assert client.get(world.url("/echo")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [[b"x", b"a\r\nhost: other"]], [[b"x\r\ny", b"a"]], [[b"x", b"a\x00"]], [[b"", b"a"]], [[b"x y", b"a"]],
        [["x", "a"]], [[b"x"]], [b"x"], [[b"x", b"y"]] * 101, [[b"x", b"y" * 40_000]],
    ],
)  # fmt: skip
def test_headers_that_are_none_are_refused(world: World, headers: Any) -> None:
    """A jail need not use httpx: what it says is looked at here."""
    world.enter()
    with pytest.raises(Exception, match=r"header"):
        call("http.open", "GET", world.url("/echo"), headers, False)
    assert world.public.seen == []


@pytest.mark.parametrize(
    "call_of",
    [
        ("open", "TRACE", "https://x/", [], False), ("open", "CONNECT", "https://x/", [], False),
        ("open", "GET\r\n", "https://x/", [], False), ("open", "GET", "https://u:p@api.example.test/", [], False),
        ("open", "GET", "https://x/" + "a" * 9000, [], False), ("open", "GET", "nonsense", [], False),
        ("open", "GET", "https://[", [], False), ("open", 1, 2, 3, 4), ("head", 99), ("read", -1), ("fetch", "x"),
        ("send", 1, "text"), ("open",), ("read", True),
    ],
)  # fmt: skip
def test_calls_that_are_none_are_refused(world: World, call_of: tuple[Any, ...]) -> None:
    """And nothing is sent."""
    world.enter()
    with pytest.raises(Exception, match=r"\w+") as raised:
        call(f"http.{call_of[0]}", *call_of[1:])
    assert raised.value.kind != "HostError"  # type: ignore[attr-defined]


def test_a_bomb_is_unpacked_no_further_than_allowed(world: World) -> None:
    """Twenty megabytes of zeros come as twenty kilobytes; unpacking ends at the limit."""
    with bare(world) as plain:
        assert len(plain.get(world.url("/bomb")).content) == 20_000_000
    client = world.enter(limits=HttpLimits(response_size=1_000_000))
    received: list[int] = []
    with (
        client.stream("GET", world.url("/bomb")) as answer,
        pytest.raises(httpx.ConnectError, match="more than 1,000,000 bytes"),
    ):
        received.extend(len(piece) for piece in answer.iter_bytes())
    assert sum(received) <= 1_000_000


def test_answers_that_are_packed_otherwise_are_refused(world: World) -> None:
    """Only what can be unpacked within limits is asked for, and taken."""
    with pytest.raises(httpx.ConnectError, match="'br', which was not asked for"):
        world.enter().get(world.url("/brotli"))


def test_sizes_are_limited_in_both_directions(world: World) -> None:
    """Also of what is streamed, and of headers."""
    client = world.enter(limits=HttpLimits(response_size=100_000, request_size=100_000))
    with pytest.raises(httpx.ConnectError, match="more than 100,000 bytes"):
        client.get(world.url("/large?size=100001"))
    assert len(client.get(world.url("/large?size=100000")).content) == 100_000
    with pytest.raises(httpx.ConnectError, match="may have 100,000 bytes"):
        client.post(world.url("/echo"), content=(b"x" * 50_000 for _ in range(3)))
    with pytest.raises(httpx.ConnectError):
        client.get(world.url("/headers?count=150"))


def test_times_are_limited(world: World) -> None:
    """A server that keeps silent is not waited for longer than said, and the error is a time-out."""
    client = world.enter(limits=HttpLimits(idle_time=0.3))
    with pytest.raises(httpx.ReadTimeout, match="did not answer in time"):
        client.get(world.url("/slow"))
    client = world.enter(limits=HttpLimits(total_time=0.5, response_size=1 << 50))
    with client.stream("GET", world.url("/endless")) as answer, pytest.raises(httpx.ReadTimeout):
        list(answer.iter_raw())


def test_so_many_requests_are_open_at_once(world: World) -> None:
    """The next one is refused until one of them ends."""
    client = world.enter(limits=HttpLimits(concurrent=2))
    with (
        client.stream("GET", world.url("/endless")),
        client.stream("GET", world.url("/endless")),
        pytest.raises(httpx.ConnectError, match="2 requests of this plugin are open"),
    ):
        client.get(world.url("/echo"))
    assert client.get(world.url("/echo")).status_code == 200


def test_nothing_is_read_from_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the host's, and no netrc."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{PRIVATE}:{world.public.port}")
    assert world.enter().get(world.url("/echo")).status_code == 200
    assert world.private.seen == []


def test_in_process_it_is_a_client_as_any_other(world: World) -> None:
    """A trusted plugin needs no permission."""
    with serving(PUBLIC, 0, None) as plain, http_client(trust_env=False) as client:
        assert client.get(f"http://{PUBLIC}:{plain.port}/secret").text == "the secret of this network"


# --- attacks -------------------------------------------------------------------------------------------


def test_attack_metadata_address(world: World) -> None:
    """The address at which providers tell machines their secrets is not asked, by number or by any name."""
    with bare(world) as plain:  # on this machine another private address stands for it
        assert plain.get(world.url("/secret", INTERNAL)).text == "the secret of this network"
    service = HttpService(resolver=world.resolve, trust=world.trust, allow_plain=True)
    grants = grants_of("net:169.254.169.254", f"net:{INTERNAL}:{world.public.port}", "net:metadata.example.test")
    seen = len(world.private.seen)
    world.addresses |= {"169.254.169.254": [["169.254.169.254"]], "metadata.example.test": [["169.254.169.254"]]}
    with (
        entered([service], grants, world._directory, world._monkeypatch, install=lambda _: None),
        http_client() as client,
    ):
        for url in (
            "http://169.254.169.254/latest/meta-data/", "https://169.254.169.254/", "http://metadata.example.test/",
            world.url("/secret", INTERNAL),
        ):  # fmt: skip
            with pytest.raises(httpx.ConnectError, match="not out in the world"):
                client.get(url)
        for url in ("http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/", "http://0xa9fea9fe/"):
            with pytest.raises(httpx.ConnectError):
                client.get(url)
    assert len(world.private.seen) == seen


def test_attack_dns_answers_that_change(world: World) -> None:
    """The address that was looked at is the one that is asked: a name is resolved once for a request."""
    world.addresses[API] = [[PUBLIC], [PRIVATE]]
    with bare(world) as plain:  # looks, finds it public, and is led inside
        assert asyncio.run(world.resolve(API, 0)) == [PUBLIC]
        assert plain.get(world.url("/secret")).status_code == 200
    assert len(world.private.seen) == 1
    world.addresses[API] = [[PUBLIC], [PRIVATE]]
    world.asked.clear()
    client = world.enter()
    client.get(world.url("/secret"))
    assert world.asked == [API]
    with pytest.raises(httpx.ConnectError, match="not out in the world"):
        client.get(world.url("/secret"))
    assert len(world.private.seen) == 1
    assert len(world.public.seen) == 1


def test_attack_redirect_to_a_private_address(world: World) -> None:
    """The host follows none; where the plugin's client does, the next hop is a request like the first."""
    place = world.url("/secret", INTERNAL)
    with bare(world, follow_redirects=True) as plain:
        assert plain.get(world.url(f"/redirect?to={place}")).text == "the secret of this network"
    seen = len(world.private.seen)
    client = world.enter()
    assert client.get(world.url(f"/redirect?to={place}")).status_code == 302
    with pytest.raises(httpx.ConnectError, match="not granted"):
        client.get(world.url(f"/redirect?to={place}"), follow_redirects=True)
    both = (f"net:{API}:{world.public.port}", f"net:{INTERNAL}:{world.public.port}")
    client = world.enter(*both)
    with pytest.raises(httpx.ConnectError, match="not out in the world"):
        client.get(world.url(f"/redirect?to={place}"), follow_redirects=True)
    assert len(world.private.seen) == seen
