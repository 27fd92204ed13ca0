"""Modules that wait for their first use."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def run(program: str) -> str:
    """What a program prints in a process that imported nothing else yet."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_loads_a_module_whole_at_its_first_use() -> None:
    program = """
import sys
from triptych_service import lean
import asyncio, ssl
assert type(ssl) is not type(sys) and "_ssl" not in sys.modules
assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).check_hostname
assert type(ssl) is type(sys) and ssl is sys.modules["ssl"] and "_ssl" in sys.modules
assert ssl.__loader__ is ssl.__spec__.loader and repr(ssl).startswith("<module 'ssl' from")
from asyncio.sslproto import SSLProtocol
assert SSLProtocol.__module__ == "asyncio.sslproto" and asyncio.sslproto.SSLProtocol is SSLProtocol
from typing_extensions import Self, override
assert "Protocol" not in vars(sys.modules["typing_extensions"])
from typing_extensions import Protocol
import typing
assert Self is typing.Self and Protocol.__module__.startswith("typing")
"""
    assert run(program) == ""


def test_inspect_works_with_the_syntax_tree_postponed(tmp_path: Path) -> None:
    source = tmp_path / "nested.py"
    source.write_text("class A:\n    def f(self):\n        pass\n\n    class B:\n        x = 1\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from triptych_service import lean
import ast, inspect
assert "_ast" not in sys.modules or type(ast) is not type(sys)
import nested
assert inspect.getsource(nested.A.B) == "    class B:\\n        x = 1\\n"
assert type(ast) is type(sys) and issubclass(ast.NodeTransformer, ast.NodeVisitor)
"""
    assert run(program) == ""


def test_leaves_alone_what_is_loaded() -> None:
    program = """
import ssl, sys
from triptych_service import lean
assert type(ssl) is type(sys) and ssl is sys.modules["ssl"]
"""
    assert run(program) == ""


def test_threads_that_come_at_once_all_see_the_whole_module() -> None:
    program = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from triptych_service import lean
sys.setswitchinterval(1e-6)
import ssl, tempfile, typing_extensions
together = threading.Barrier(8)
def use(_):
    together.wait()
    assert ssl.create_default_context is not None and ssl._create_unverified_context is not None
    assert tempfile.TemporaryDirectory is not None and tempfile.SpooledTemporaryFile is not None
    assert typing_extensions.Protocol is not None and typing_extensions.runtime_checkable is not None
with ThreadPoolExecutor(8) as pool:
    list(pool.map(use, range(8)))
"""
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, [program] * 4)) == [""] * 4


def test_a_module_that_is_missing_is_missing() -> None:
    program = """
import sys
from triptych_service import lean
lean._POSTPONED["no.such"] = {}
lean._POSTPONED["nothing_of_this_name"] = {}
for name in ("no.such", "nothing_of_this_name"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit("found")
"""
    assert run(program) == ""


def test_a_settled_daemon_gives_up_the_pages_of_its_start_and_goes_on() -> None:
    program = """
import asyncio, re, ssl
from triptych_service import memory
def mapped():
    text = open("/proc/self/smaps_rollup").read()
    return {key: int(re.search(rf"^{key}: *([0-9]+) kB", text, re.M)[1]) for key in ("Rss", "Anonymous")}
before = mapped()
memory.settle()
after = mapped()
assert after["Rss"] - after["Anonymous"] < 0.8 * (before["Rss"] - before["Anonymous"]), (before, after)
assert ssl.create_default_context().check_hostname
async def works():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
asyncio.run(works())
import decimal, hashlib, sqlite3
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
assert hashlib.sha256(str(decimal.Decimal(1)).encode()).hexdigest().startswith("6b86")
"""
    assert run(program) == ""


def test_what_a_burst_freed_goes_back_to_the_kernel() -> None:
    program = """
import asyncio, re
from triptych_service import memory
memory.limit_arenas()
memory._LOOK_SECONDS = 0.05
def anonymous():
    return int(re.search("^Anonymous: *([0-9]+) kB", open("/proc/self/smaps_rollup").read(), re.M)[1])
async def main():
    task = asyncio.create_task(memory.keep_trimmed())
    await asyncio.sleep(0)
    burst = [bytes(1000) for _ in range(20_000)]
    high = anonymous()
    last = burst.pop()  # so that the heap cannot shrink from its end
    burst.clear()
    async with asyncio.timeout(60):
        while anonymous() > high - 15_000:
            await asyncio.sleep(0.05)
    assert not task.done() and len(last) == 1000
asyncio.run(main())
"""
    assert run(program) == ""
