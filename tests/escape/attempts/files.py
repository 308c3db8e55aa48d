"""1 to 19: files of the host, of other plugins, and too many of its own."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
from pathlib import Path

from .kernel import call
from .world import Foiled, World, each


def open_etc_passwd(world: World) -> str:
    return Path("/etc/passwd").read_text()[:20]


def read_configuration(world: World) -> str:
    names = (".env", "settings.yaml", "key.pem", "secret")
    return str(each(*(world.outside(name).read_text for name in names), lambda: os.listdir(world.home)))


def read_environment_of_others(world: World) -> str:
    return str(each(*(Path(f"/proc/{pid}/environ").read_text for pid in world.processes)))


def read_memory_of_others(world: World) -> str:
    def read(pid: int) -> str:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            return os.pread(memory, len(world.secret), world.address).decode()
        finally:
            os.close(memory)

    return str(each(*(lambda pid=pid: read(pid) for pid in world.processes)))


def find_secret_in_own_environment(world: World) -> str:
    kept = list(os.environ.values())
    try:
        kept.append(Path("/proc/self/environ").read_text())
    except OSError:
        pass
    found = [value for value in kept if world.secret in value]
    if not found:
        raise Foiled("the environment holds nothing of the host")
    return found[0]


def read_open_descriptors(world: World) -> str:
    for descriptor in range(3, 1024):
        try:
            content = os.pread(descriptor, 100, 0)
        except OSError:
            continue
        if world.secret.encode() in content:
            return content.decode()
    raise Foiled("no descriptor of the host is open")


def write_outside(world: World) -> str:
    places = (world.home, "/tmp", "/var/tmp", world.neighbour, str(Path(world.plugin).parent))

    def write(place: str) -> str:
        path = Path(place, world.token)
        path.write_text("x")
        path.unlink()
        return str(path)

    return str(each(*(lambda place=place: write(place) for place in places)))


def follow_symbolic_link(world: World) -> str:
    link = world.inside(world.token)
    link.symlink_to(world.outside("secret"))
    return link.read_text()


def make_hard_link(world: World) -> str:
    link = world.inside(world.token)
    os.link(world.outside("secret"), link)
    return link.read_text()


def rename_across(world: World) -> str:
    def outwards() -> str:
        world.inside(world.token).touch()
        return str(world.inside(world.token).rename(world.outside(world.token)))

    def inwards() -> str:
        return str(world.outside("movable").rename(world.inside("moved")))

    return str(each(inwards, outwards))


def change_attributes(world: World) -> str:
    files = str(world.outside("secret")), str(Path(world.plugin, "manifest.py"))
    return str(
        each(
            *(lambda path=path: os.chmod(path, 0o666) for path in files),
            *(lambda path=path: os.utime(path, (0, 0)) for path in files),
            *(lambda path=path: os.setxattr(path, "user.x", b"x") for path in files),
            *(lambda path=path: os.chown(path, os.getuid(), os.getgid()) for path in files),
        )
    )


def find_existence_and_size(world: World) -> int:
    return world.outside("secret").stat().st_size


def open_by_handle(world: World) -> str:
    handle, mount = bytearray((128).to_bytes(4, "little") + bytes(132)), bytes(8)
    buffer = bytes(handle)
    call("name_to_handle_at", -100, os.fsencode(world.outside("secret")) + b"\0", buffer, mount, 0)
    root = os.open(world.home, os.O_RDONLY)
    return os.read(call("open_by_handle_at", root, buffer, os.O_RDONLY), 100).decode()


def read_other_plugin(world: World) -> str:
    return str(each(lambda: os.listdir(world.neighbour), Path(world.neighbour, "manifest.py").read_text))


def rewrite_own_code(world: World) -> str:
    code = Path(world.plugin, "manifest.py")

    def append() -> int:
        with code.open("a") as file:
            return file.write("\n# changed\n")

    def replace() -> str:
        Path(world.plugin, world.token).write_text("")
        return str(Path(world.plugin, world.token).replace(Path(world.plugin, "extra.py")))

    return str(each(append, replace, lambda: os.truncate(code, code.stat().st_size), lambda: code.unlink()))


def plant_start_up_code(world: World) -> str:
    user = site.getusersitepackages()
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), *sys.path]
    names = (f"{world.token}.pth", f"{world.token}_sitecustomize.py")

    def plant(path: Path) -> str:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        path.unlink()
        return str(path)

    paths = [Path(place, name) for place in places if place for name in names]
    if not Path(user).is_relative_to(world.scratch):  # where nobody's Python looks, it may write what it likes
        paths.append(Path(user, names[0]))
    return str(each(*(lambda path=path: plant(path) for path in paths)))


def fill_disk(world: World) -> int:
    for number in range(world.size):
        world.inside(f"{world.token}-{number}").write_bytes(bytes(1 << 20))
    time.sleep(world.patience)
    return world.size


def write_to_shared_memory(world: World) -> str:
    path = Path("/dev/shm", world.token)
    path.write_text("x")
    path.unlink()
    return str(path)


def use_up_inodes(world: World) -> int:
    for number in range(world.size):
        os.close(os.open(world.inside(f"{world.token}-{number}"), os.O_CREAT | os.O_WRONLY))
    time.sleep(world.patience)
    return world.size
