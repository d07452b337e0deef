"""
What happens if the client for one event loop is used in the other.
"""

from __future__ import annotations

import sys
from textwrap import dedent, indent

import pytest

from tests import forking

USE_ASYNCIO = "from dcm_ws.client.aio import DCMClient"
USE_TWISTED = "from dcm_ws.client import DCMClient"
URL = "ws://127.0.0.1:1/ws"


def run(program: str, setup: str = "") -> str:
    """
    The last line that a program prints: the name and the text of the exception that ends C{main}.

    @param program: the body of the coroutine function C{main}.
    @param setup: statements before it; they may replace C{run}, which runs the coroutine.
    """
    text = f"""
import asyncio, warnings
from twisted.internet.defer import Deferred
run = asyncio.run
warnings.simplefilter("error")
{dedent(setup)}
async def main():
    try:
{indent(dedent(program), "        ")}
    except Exception as error:
        print(type(error).__name__, error)
run(main())
"""
    done = forking.run([sys.executable, "-c", text], input="", timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip().rpartition("\n")[2]


IN_TWISTED = "run = Deferred.fromCoroutine"

UNDER_THE_ASYNCIO_REACTOR = """
from twisted.internet import asyncioreactor, task
asyncioreactor.install()
run = lambda main: task.react(lambda reactor: task.deferLater(reactor, 0, lambda: Deferred.fromCoroutine(main)))
"""


@pytest.mark.parametrize(
    ("setup", "program"),
    [
        ("", f"async with DCMClient('{URL}'): pass"),
        ("", f"client = DCMClient('{URL}')"),
        (f"client = DCMClient('{URL}')", "client.startService()"),
        (f"client = DCMClient('{URL}')", "await client.when_connected()"),
        (f"client = DCMClient('{URL}')", "await client.publish('global', 'system.info')"),
        (f"client = DCMClient('{URL}')", "await client.ping()"),
        (f"client = DCMClient('{URL}')", "async with client: pass"),
        (f"client = DCMClient('{URL}')", "await client.connect()"),
        (f"client = DCMClient('{URL}')", "await client.close()"),
        (UNDER_THE_ASYNCIO_REACTOR, f"async with DCMClient('{URL}'): pass"),
    ],
)
def test_twisted_client_in_asyncio(setup: str, program: str) -> None:
    """
    The error says which class to import for asyncio.
    """
    found = run(program, f"from dcm_ws.client import DCMClient\n{dedent(setup)}")
    assert found.startswith(("TypeError", "AttributeError"))
    assert USE_ASYNCIO in found


def test_wrong_client_leaves_the_reactor_alone() -> None:
    """
    A program that runs asyncio does not get a reactor of Twisted's by the mistake.
    """
    program = f"""
    try:
        DCMClient("{URL}")
    except TypeError:
        print("twisted.internet.reactor" in sys.modules)
    """
    assert run(program, f"import sys\n{USE_TWISTED}") == "False"


@pytest.mark.parametrize(
    ("setup", "program"),
    [
        (IN_TWISTED, "await client.connect()"),
        (IN_TWISTED, "async with client: pass"),
        (IN_TWISTED, "await client.publish('global', 'system.info')"),
        (IN_TWISTED, "await client.ping()"),
        (IN_TWISTED, "client.startService()"),
        (IN_TWISTED, "client.setServiceParent(None)"),
        (IN_TWISTED, "await client.when_connected()"),
        (UNDER_THE_ASYNCIO_REACTOR, "await client.connect()"),
    ],
)
def test_asyncio_client_in_twisted(setup: str, program: str) -> None:
    """
    The error says which class to import for Twisted.
    """
    found = run(program, f"from dcm_ws.client.aio import DCMClient\nclient = DCMClient('{URL}')\n{dedent(setup)}")
    assert found.startswith(("RuntimeError", "AttributeError"))
    assert USE_TWISTED in found


@pytest.mark.parametrize("name", ["nothing", "_nothing", "__deepcopy__"])
@pytest.mark.parametrize("module", ["dcm_ws.client", "dcm_ws.client.aio"])
def test_other_names(module: str, name: str) -> None:
    """
    Names that neither client has are missing as on any object.
    """
    setup = f"from {module} import DCMClient\nclient = DCMClient('{URL}')"
    assert run(f"client.{name}", setup) == f"AttributeError 'DCMClient' object has no attribute '{name}'"


def test_twisted_client_under_the_asyncio_reactor() -> None:
    """
    Twisted's client works in a loop of asyncio that Twisted's reactor runs.
    """
    program = f"""
    client = DCMClient("{URL}")
    states = []
    client.on_state(states.append)
    client.startService()
    while "waiting" not in states:
        await task.deferLater(reactor, 0.01)
    connected = client.when_connected()
    await client.stopService()
    try:
        await connected
    except ClosedError as error:
        print(*states[:2], states[-1], client.last_close[1])
    """
    setup = (
        UNDER_THE_ASYNCIO_REACTOR
        + """
from twisted.internet import reactor
from dcm_ws.client import ClosedError, DCMClient
"""
    )
    assert run(program, setup) == "connecting waiting closed connection refused: nothing listens there"
