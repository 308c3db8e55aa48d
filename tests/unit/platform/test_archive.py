"""Archives that somebody hands over: what is refused and why, and that nothing leaves the staging folder."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixsim7_backend.infrastructure.plugins._installing.archive import unpack
from pixsim7_backend.infrastructure.plugins._installing.members import Limits, Roster, find_name_problem
from pixsim7_backend.infrastructure.plugins.errors import ArchiveRefusedError, MemberRefusedError

LIMITS = Limits()


def tar_of(*members: tarfile.TarInfo | str, content: bytes = b"x", form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an uncompressed tar; a name stands for a file with ``content``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for each in members:
            member = tarfile.TarInfo(each) if isinstance(each, str) else each
            if isinstance(each, str):
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content.ljust(member.size, b"x")) if member.isreg() else None)
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


def zip_of(*members: zipfile.ZipInfo | str, content: bytes = b"x", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip; a name stands for a file with ``content``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member in members:
            archive.writestr(member, content)
    return out.getvalue()


def zip_info(name: str, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.flag_bits = flags
    return member


def refusal(packed: bytes, tmp_path: Path, limits: Limits = LIMITS) -> str:
    """Unpack what must be refused; return the text of the error."""
    file, staging = tmp_path / "offered", tmp_path / "staging"
    file.write_bytes(packed)
    staging.mkdir()
    before = tree(tmp_path, staging)
    with pytest.raises((MemberRefusedError, ArchiveRefusedError)) as refused:
        unpack(file, staging, limits)
    assert tree(tmp_path, staging) == before, "something was written outside of the staging folder"
    return str(refused.value)


def tree(root: Path, without: Path) -> list[tuple[str, int]]:
    """Return every path below ``root`` with its size, but those in one folder."""
    return sorted(
        (os.fspath(each), each.lstat().st_size)
        for each in root.rglob("*")
        if not each.is_relative_to(without) and not each.is_dir()
    )


# --- names ----------------------------------------------------------------------------------------

NAMES = {
    "/etc/passwd": "is an absolute name",
    "~/x.py": "is an absolute name",
    "../x.py": "leads out of the plugin's folder by `..`",
    "a/../../x.py": "leads out of the plugin's folder by `..`",
    "C:/x.py": "has a drive letter or a stream in its name",
    "x.py:hidden": "has a drive letter or a stream in its name",
    "a\\..\\x.py": "has a backslash in its name",
    "a//x.py": "has a part in its name that means nothing",
    "a/./x.py": "has a part in its name that means nothing",
    "\uff0e\uff0e/x.py": "has a part in its name that means nothing",
    "a\uff0fb.py": "has a part in its name that means nothing",
    "a\nb.py": "has a control character in its name (U+000A)",
    "a\x1b[31m.py": "has a control character in its name (U+001B)",
    "a\u202egnp.py": "has a bidirectional, invisible or unassigned character in its name (U+202E)",
    "a\u2066.py": "has a bidirectional, invisible or unassigned character in its name (U+2066)",
    "a\u200b.py": "has a bidirectional, invisible or unassigned character in its name (U+200B)",
    "a\u3164.py": "has a bidirectional, invisible or unassigned character in its name (U+3164)",
    "a\ufe0f.py": "has a bidirectional, invisible or unassigned character in its name (U+FE0F)",
    "a\u00a0.py": "has a bidirectional, invisible or unassigned character in its name (U+00A0)",
    "a\ue000.py": "has a bidirectional, invisible or unassigned character in its name (U+E000)",
    "a /x.py": "has a blank or a dot at the edge of its name, which some systems drop",
    "x.": "has a blank or a dot at the edge of its name, which some systems drop",
    "nul.py": "has a name that is a device on some systems",
    "COM1": "has a name that is a device on some systems",
    ".git/config": "is a folder of a version control system",
    "a/.GIT/hooks/x": "is a folder of a version control system",
    ".hg/hgrc": "is a folder of a version control system",
    "x" * 201: "has a name longer than 200 bytes",
    "/".join("a" * 17): "is nested deeper than 16 folders",
    "x.pth": "is a path file, which Python would run at every start",
    "x.PTH": "is a path file, which Python would run at every start",
    "x.so": "is compiled native code",
    "x.cpython-311-x86_64-linux-gnu.so": "is compiled native code",
    "libx.so.1.2": "is compiled native code",
    "x.pyd": "is compiled native code",
    "x.pyc": "is compiled code without its source",
    "__pycache__/x.cpython-311.pyc": "is compiled code without its source",
}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(("name", "reason"), NAMES.items(), ids=[ascii(name)[:30] for name in NAMES])
def test_bad_names_are_refused(kind: str, name: str, reason: str, tmp_path: Path) -> None:
    """Each bad name is named with its reason, in tar and in zip alike."""
    packed = tar_of(name) if kind == "tar" else zip_of(name)
    shown = name if len(name) <= 160 else name[:160] + "…"
    assert refusal(packed, tmp_path) == f"offered: {shown!a} {reason}"


COLLISIONS = [
    (("a.py", "a.py"), "is there twice"),
    (("a.py", "A.py"), "is the same name as 'a.py' on some systems"),
    (("x/a.py", "X/b.py"), "is the same name as 'x' on some systems"),
    (("\u00e9.py", "e\u0301.py"), r"is the same name as '\xe9.py' on some systems"),
    (("ﬁ.py", "fi.py"), r"is the same name as '\ufb01.py' on some systems"),
    (("stra\u00dfe.py", "strasse.py"), r"is the same name as 'stra\xdfe.py' on some systems"),
    (("a", "a/b.py"), "lies in 'a', which is a file"),
    (("a/b.py", "a"), "is there twice"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("pack", [tar_of, zip_of], ids=["tar", "zip"])
@pytest.mark.parametrize(("names", "reason"), COLLISIONS, ids=[ascii(names) for names, _ in COLLISIONS])
def test_names_that_collide_are_refused(
    pack: Callable[..., bytes], names: tuple[str, str], reason: str, tmp_path: Path
) -> None:
    """Two members must not be one file, on this system or on another."""
    assert refusal(pack(*names), tmp_path).endswith(f"{names[1]!a} {reason}")


def test_compiled_files_beside_their_source_are_left_out(tmp_path: Path) -> None:
    """A stale or forged compiled file would run instead of its source; Python makes it anew."""
    (tmp_path / "f").write_bytes(tar_of("x.py", "__pycache__/x.cpython-311.pyc", "x.pyc"))
    (tmp_path / "out").mkdir()
    roster = unpack(tmp_path / "f", tmp_path / "out", LIMITS)
    assert [each.name for each in (tmp_path / "out").rglob("*")] == ["x.py"]
    assert roster.left_out == ["__pycache__/x.cpython-311.pyc", "x.pyc"]


# --- tar ------------------------------------------------------------------------------------------

TAR_KINDS = {
    tarfile.SYMTYPE: "is a symbolic link",
    tarfile.LNKTYPE: "is a hard link",
    tarfile.CHRTYPE: "is a character device",
    tarfile.BLKTYPE: "is a block device",
    tarfile.FIFOTYPE: "is a named pipe",
    tarfile.CONTTYPE: "is of an unknown kind (b'7')",
    tarfile.GNUTYPE_SPARSE: "is a sparse file",
}


@pytest.mark.parametrize("kind", TAR_KINDS)
def test_tar_members_that_are_no_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    """Links, devices, pipes and sparse files are refused by name."""
    assert refusal(tar_of(special("x", kind, "/etc/passwd")), tmp_path) == f"offered: 'x' {TAR_KINDS[kind]}"


def pax(name: str, **headers: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 1
    member.pax_headers = headers
    return member


PAX = {
    "size": {"size": "99999"},
    "linkpath": {"linkpath": "/etc/passwd"},
    "GNU.sparse.major": {"GNU.sparse.major": "1", "GNU.sparse.name": "../x"},
    "hdrcharset": {"hdrcharset": "BINARY"},
}


@pytest.mark.parametrize("key", PAX)
def test_extended_headers_that_change_a_member_are_refused(key: str, tmp_path: Path) -> None:
    """Only names may be given by an extended header; sizes, links and sparse maps may not."""
    text = refusal(tar_of(pax("x.py", **PAX[key])), tmp_path)
    assert f"has an extended header that changes it ({key!a})" in text


def test_a_name_in_an_extended_header_is_checked(tmp_path: Path) -> None:
    """The name that counts is the one that is checked."""
    text = refusal(tar_of(pax("x.py", path="../../x.py")), tmp_path)
    assert text == "offered: '../../x.py' leads out of the plugin's folder by `..`"


def raw_tar(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    """Return the header and content of one member, with a right checksum."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    header[:100] = name.ljust(100, b"\0")
    header[124:136] = fields.get("size", b"%011o\0" % len(content))
    header[156:157] = kind
    header[257:265] = fields.get("magic", b"ustar\x0000")
    header[148:156] = b" " * 8
    header[148:156] = fields.get("checksum", b"%06o\0 " % sum(header))
    return bytes(header) + content + b"\0" * (-len(content) % 512)


END = b"\0" * 1024
RECORD = b"20 path=aaaaaaaaaaa\n"
RAW_TARS = {
    "cut in a header": (raw_tar(b"x.py", b"x" * 600)[:100] + b"", "is neither a zip nor a tar archive"),
    "cut in a file": (raw_tar(b"x.py", b"x" * 600)[:700], "ends in the middle"),
    "cut in the padding": (raw_tar(b"x.py", b"x" * 600)[:-10], "ends in the middle"),
    "without an end": (raw_tar(b"x.py", b"x"), "ends in the middle"),
    "with bytes after the end": (raw_tar(b"x.py", b"x") + END + b"more", "has bytes after its end"),
    "with a second archive": (raw_tar(b"x.py") + END + raw_tar(b"y.py") + END, "has bytes after its end"),
    "with a wrong checksum": (raw_tar(b"x.py", checksum=b"000001\0 ") + END, "has a damaged header"),
    "with a number that is none": (raw_tar(b"x.py", size=b"\x80" + b"\0" * 10 + b"\1") + END, "has a damaged header"),
    "of an old kind": (raw_tar(b"x.py") + raw_tar(b"y.py", magic=b"\0" * 8) + END, "is no tar archive of a kind"),
    "with something behind a name": (raw_tar(b"x.py\0hidden") + END, "has something hidden behind its name"),
    "with a name that is no text": (raw_tar(b"\xff.py") + END, "has a name that is not UTF-8"),
    "with a folder that has content": (raw_tar(b"x/", b"x", b"5") + END, "is a folder with content"),
    "with a file named like a folder": (raw_tar(b"x/", b"x") + END, "is a file that is named like a folder"),
    "with an endless extended header": (
        raw_tar(b"x", b"", b"x", size=b"77777777777\0") + END,
        "has an extended header of an odd size",
    ),
    "with a damaged extended header": (raw_tar(b"x", b"99 path=y\n", b"x") + END, "has a damaged extended header"),
    "with one name for all": (raw_tar(b"x", RECORD, b"g") + END, "gives all members one name"),
    "with two names": (raw_tar(b"x", RECORD, b"x") + raw_tar(b"x", b"b.py\0", b"L") + END, "has two names"),
    "with a name for nothing": (raw_tar(b"x", RECORD, b"x") + END, "ends in the middle"),
    "with an old extended header": (raw_tar(b"x", b"1", b"X") + END, "has extended headers of an old kind"),
}


@pytest.mark.parametrize("case", RAW_TARS)
def test_damaged_and_tricky_tars_are_refused(case: str, tmp_path: Path) -> None:
    """What the standard library's reader would forgive is refused."""
    packed, reason = RAW_TARS[case]
    assert reason in refusal(packed, tmp_path)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_tars_are_read_to_their_end(packer: str, tmp_path: Path) -> None:
    """What follows the packed stream is refused, and so is a stream that is cut."""
    pack = PACKERS[packer]
    packed = pack(tar_of("x.py"))
    (tmp_path / "out").mkdir()
    (tmp_path / "f").write_bytes(packed)
    assert unpack(tmp_path / "f", tmp_path / "out", LIMITS).total == 1
    for number, (bad, reason) in enumerate(
        [(packed + b"more", "after its end"), (packed + pack(b"x"), "after its end"), (packed[:-5], "in the middle")]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        assert reason in refusal(bad, place)


@pytest.mark.parametrize("packer", PACKERS)
def test_bombs_are_stopped_while_they_unpack(packer: str, tmp_path: Path) -> None:
    """An archive that grows a thousand times is refused after its first MiB, whatever its headers say."""
    packed = PACKERS[packer](tar_of("x.bin", content=b"\0" * 8_000_000))
    assert "times its size" in refusal(packed, tmp_path)
    assert sum(each.stat().st_size for each in (tmp_path / "staging").rglob("*")) <= 1_200_000


def test_extended_headers_count(tmp_path: Path) -> None:
    """Headers without end are too large like members are, although nothing of them is written."""
    flood = gzip.compress(raw_tar(b"x", b"13 comment=x\n", b"g") * 2000 + END)
    text = refusal(flood, tmp_path, Limits(total_bytes=500_000, ratio=10_000))
    assert text == "offered: 'x' makes it larger than 500,000 bytes in all"


def test_a_bomb_of_padding_is_stopped(tmp_path: Path) -> None:
    """Zeros after the end are padding only up to a MiB."""
    assert refusal(tar_of("x.py") + b"\0" * 2_000_000, tmp_path) == "offered has bytes after its end"


# --- zip ------------------------------------------------------------------------------------------


def overlapping() -> bytes:
    """Return a zip whose directory names one member's content twice."""
    packed = bytearray(zip_of("a.py", "b.py", method=zipfile.ZIP_STORED))
    second = packed.rindex(b"PK\x01\x02")
    packed[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(packed)


def patched(packed: bytes, at: int, value: bytes, mark: bytes = b"PK\x01\x02") -> bytes:
    """Return the zip with bytes of its first record of a kind replaced."""
    place = packed.index(mark) + at
    return packed[:place] + value + packed[place + len(value) :]


def with_gap() -> bytes:
    packed = zip_of("a.py", method=zipfile.ZIP_STORED)
    directory = packed.index(b"PK\x01\x02")
    moved = packed[:directory] + b"hidden" + packed[directory:]
    return patched(moved, 16, struct.pack("<I", directory + 6), b"PK\x05\x06")


def second_name() -> bytes:
    member = zip_info("a.py")
    name = b"../evil.py"
    member.extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(b"a.py")) + name
    return zip_of(member)


STORED = zip_of("a.py", method=zipfile.ZIP_STORED)


def with_more_in_its_directory(count: int) -> bytes:
    """Return a zip that says it has one member, and whose directory lists one many times more."""
    directory, end = STORED.index(b"PK\x01\x02"), STORED.index(b"PK\x05\x06")
    entry = STORED[directory:end]
    packed = STORED[:end] + entry * count + STORED[end:]
    return patched(packed, 12, struct.pack("<I", len(entry) * (count + 1)), b"PK\x05\x06")


ZIPS = {
    "a symbolic link": (zip_of(zip_info("x", stat.S_IFLNK | 0o777)), "'x' is a symbolic link"),
    "a device": (zip_of(zip_info("x", stat.S_IFCHR | 0o600)), "'x' is a device, pipe or socket"),
    "a folder named like a file": (zip_of(zip_info("x", stat.S_IFDIR)), "'x' is a folder that is named like a file"),
    "a file named like a folder": (zip_of(zip_info("x/")), "'x/' is a file that is named like a folder"),
    "an encrypted member": (patched(STORED, 8, b"\1\0"), "'a.py' is encrypted"),
    "bzip2": (zip_of("a.py", method=zipfile.ZIP_BZIP2), "is compressed by a method that is not read here"),
    "a name in no known encoding": (
        patched(patched(zip_of("\u00e9.py"), 8, b"\0\0"), 6, b"\0\0", b"PK\x03\x04"),
        "has a name that is not UTF-8",
    ),
    "overlapping members": (overlapping(), "'b.py' overlaps another member"),
    "two names": (patched(STORED, 30, b"b", b"PK\x03\x04"), "'a.py' has two names"),
    "a second name in an extra field": (second_name(), "'a.py' has two names"),
    "headers that differ": (patched(STORED, 8, b"\x08\0", b"PK\x03\x04"), "'a.py' has two headers that differ"),
    "a size that differs": (patched(STORED, 22, b"\5", b"PK\x03\x04"), "'a.py' has two headers that differ"),
    "a checksum that differs": (patched(STORED, 14, b"\5", b"PK\x03\x04"), "'a.py' has two headers that differ"),
    "more members than it says": (with_more_in_its_directory(100_000), "has a directory that contradicts itself"),
    "a NUL in a name": (STORED.replace(b"a.py", b"a\0py"), "has a control character in its name (U+0000)"),
    "bytes before the first member": (b"PK\x03\x04" + b"x" * 30 + STORED, "bytes that belong to no member"),
    "bytes between members and directory": (with_gap(), "has bytes that belong to no member"),
    "bytes after the end": (STORED + b"more", "has bytes after its end"),
    "a comment that is longer than the rest": (patched(STORED, 20, b"\5\0", b"PK\x05\x06"), "bytes after its end"),
    "fewer members than it says": (patched(STORED, 8, b"\2\0\2\0", b"PK\x05\x06"), "directory that contradicts"),
    "one part of several": (patched(STORED, 4, b"\1\0", b"PK\x05\x06"), "is one part of several"),
    "ZIP64": (patched(STORED, 8, b"\xff\xff\xff\xff", b"PK\x05\x06"), "is a ZIP64 archive"),
    "a wrong checksum": (patched(STORED, 31 + 3, b"y", b"PK\x03\x04"), "is damaged: Bad CRC-32"),
    "nothing but an end": (STORED[:4] + b"\0" * 40, "is no complete zip archive"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_tricky_zips_are_refused(case: str, tmp_path: Path) -> None:
    """Whatever two programs could read differently is refused, by member where it is one."""
    packed, reason = ZIPS[case]
    assert reason in refusal(packed, tmp_path)


def test_a_directory_that_lies_is_not_taken_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who claims one member and lists a hundred thousand is refused before the list is made."""
    monkeypatch.setattr(zipfile, "ZipFile", lambda _stream: pytest.fail("the directory was read whole"))
    assert "contradicts itself" in refusal(with_more_in_its_directory(100_000), tmp_path)


def test_zips_that_were_written_to_a_pipe_are_read(tmp_path: Path) -> None:
    """Their headers have no sizes, which follow each member."""

    class Pipe(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.written += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", "x" * 1000)
        archive.writestr("b.py", "y")
    (tmp_path / "f").write_bytes(pipe.written)
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "f", tmp_path / "out", LIMITS)
    assert {each.name: each.stat().st_size for each in (tmp_path / "out").iterdir()} == {"a.py": 1000, "b.py": 1}


def test_modes_of_members_are_not_taken_over(tmp_path: Path) -> None:
    """Nothing is set-user-id, executable or writable by others, whatever the archive says."""
    member = tarfile.TarInfo("x.py")
    member.mode = 0o6777
    for number, packed in enumerate((tar_of(member), zip_of(zip_info("x.py", stat.S_IFREG | 0o6777)))):
        (tmp_path / "f").write_bytes(packed)
        (tmp_path / str(number)).mkdir()
        unpack(tmp_path / "f", tmp_path / str(number), LIMITS)
        assert not (tmp_path / str(number) / "x.py").stat().st_mode & 0o7133


def test_a_zip_bomb_is_stopped(tmp_path: Path) -> None:
    """Sizes count as they are read."""
    assert "makes it unpack to more than 100 times its size" in refusal(
        zip_of("x", content=b"\0" * 4_000_000), tmp_path
    )


def test_a_header_that_lies_about_the_size_does_not_help(tmp_path: Path) -> None:
    """A member that says it is small gives no more than it says, and its checksum no longer fits."""
    packed = zip_of("x", content=b"a" * 100_000)
    lie = struct.pack("<I", 10)
    assert "is damaged" in refusal(patched(patched(packed, 24, lie), 22, lie, b"PK\x03\x04"), tmp_path)


# --- sizes ----------------------------------------------------------------------------------------

SMALL = Limits(total_bytes=5000, file_bytes=3000, members=3, depth=3)
TOO_MUCH = [
    (("a",), 3001, "'a' is larger than 3,000 bytes"),
    (("a", "b"), 2600, "'b' makes it larger than 5,000 bytes in all"),
    (("a", "b", "c", "d"), 1, "has more than 3 members"),
    (("a/b/c/d",), 1, "'a/b/c/d' is nested deeper than 3 folders"),
]


@pytest.mark.parametrize("pack", [tar_of, zip_of], ids=["tar", "zip"])
@pytest.mark.parametrize(("names", "size", "reason"), TOO_MUCH, ids=[reason for *_, reason in TOO_MUCH])
def test_limits_hold(
    pack: Callable[..., bytes], names: tuple[str, ...], size: int, reason: str, tmp_path: Path
) -> None:
    """Each limit is a setting, and its error names the member that broke it."""
    packed = pack(*names, content=(os.urandom(size // 2 + 1) * 2)[:size])
    packed = gzip.compress(packed) if pack is tar_of else packed
    limits = Limits(total_bytes=max(len(packed), 5000), file_bytes=3000, members=3, depth=3)
    text = refusal(packed, tmp_path, limits)
    assert text.endswith(reason.replace("5,000", f"{limits.total_bytes:,}"))


def test_an_archive_larger_than_what_may_be_unpacked_is_not_opened(tmp_path: Path) -> None:
    """It cannot hold anything acceptable."""
    assert refusal(b"PK\x03\x04" * 2000, tmp_path, SMALL) == "offered is larger than 5,000 bytes"


@pytest.mark.parametrize("packed", [b"", b"hello", b"\x1f\x8b\x08broken", b"7z\xbc\xaf'\x1c"])
def test_what_is_no_archive_is_refused(packed: bytes, tmp_path: Path) -> None:
    """Other formats, and broken ones, are refused in a sentence."""
    assert refusal(packed, tmp_path).startswith("offered is ")


# --- whatever comes ---------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "..",
        ".",
        "",
        "/",
        "\\",
        "C:",
        "a",
        "A",
        "b.py",
        "\u202e",
        "\0",
        "~",
        ".git",
        "\uff0e\uff0e",
        "e\u0301",
        "\u00e9",
        "x.pth",
    ]
)
_NAMES = st.one_of(
    st.lists(_PIECES, min_size=1, max_size=5).map("/".join), st.text(min_size=1, max_size=12), st.just("./a/b.py")
)
_KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


def _unpack_watched(packed: bytes, root: Path) -> None:
    """Unpack into a folder beside one that must stay as it is; whatever is admitted must lie in the first."""
    outside, staging = root / "outside", root / "inside" / "staging"
    outside.mkdir(parents=True)
    staging.mkdir(parents=True)
    (outside / "kept").write_text("kept")
    file = root / "offered"
    file.write_bytes(packed)
    before = tree(root, staging)
    with contextlib.suppress(MemberRefusedError, ArchiveRefusedError):
        unpack(file, staging, LIMITS)
    assert tree(root, staging) == before
    for each in staging.rglob("*"):
        assert not each.is_symlink()
        assert each.is_file() or each.is_dir()
        assert find_name_problem(each.relative_to(staging).as_posix(), LIMITS) is None
        assert not each.stat().st_mode & 0o7022


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.tuples(_NAMES, _KINDS, _NAMES), min_size=1, max_size=4),
    packer=st.sampled_from([bytes, gzip.compress]),
)
def test_no_member_of_a_tar_lands_outside(
    members: list[tuple[str, bytes, str]], packer: Callable[[bytes], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a tar's members are called and link to, nothing outside of the staging folder changes."""
    infos = [special(name, kind, target) for name, kind, target in members]
    try:
        packed = tar_of(*infos)
    except UnicodeEncodeError:
        return
    _unpack_watched(packer(packed), tmp_path_factory.mktemp("tar"))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(st.tuples(_NAMES, st.integers(0, 0xFFFF)), min_size=1, max_size=4))
def test_no_member_of_a_zip_lands_outside(
    members: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a zip's members are called and claim to be, nothing outside of the staging folder changes."""
    infos = []
    for name, mode in members:
        info = zip_info("x", mode)
        info.filename = name
        infos.append(info)
    try:
        packed = zip_of(*infos)
    except UnicodeEncodeError:
        return
    _unpack_watched(packed, tmp_path_factory.mktemp("zip"))


@pytest.mark.parametrize(
    "pack", [lambda *names: gzip.compress(tar_of(*names), mtime=0), zip_of, tar_of], ids=["gz", "zip", "tar"]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_makes_it_fail_in_another_way(
    pack: Callable[..., bytes], flips: Iterable[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An archive with some bytes replaced is unpacked or refused; there is no third."""
    packed = bytearray(pack("a/x.py", "b/" + "y" * 120))
    for place, value in flips:
        packed[place % len(packed)] = value
    _unpack_watched(bytes(packed), tmp_path_factory.mktemp("damaged"))


@settings(max_examples=300, deadline=None)
@given(name=_NAMES)
def test_what_passes_is_a_plain_relative_path(name: str) -> None:
    """A name without a problem means the same to everybody: relative, normal, visible, short."""
    if find_name_problem(name, LIMITS) is None:
        assert os.path.normpath(name) == name
        assert not Path(name).is_absolute()
        assert ".." not in unicodedata.normalize("NFKC", name).split("/")
        assert all(len(part.encode()) <= LIMITS.name_bytes for part in name.split("/"))
        assert Roster("x", LIMITS).limits is LIMITS
