"""A real SSH server for one machine, on any free port, as nobody's login service: commands run as the test itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh


async def _command(process: Any) -> None:
    """Run what a client asks for in a shell; it ends with its connection."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(process.command, shell=True, start_new_session=True, **pipes)
    try:
        await process.redirect(stdout=child.stdout, stderr=child.stderr)
        while child.poll() is None and not process.is_closing():
            await asyncio.sleep(0.02)
        process.exit(child.poll() or 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.wait()


async def _serve(host_key: Any, users: Path, ready: Any, stop: asyncio.Event) -> None:
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(users), process_factory=_command
    )
    ready(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()
    await server.wait_closed()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def server(home: Path, *hosts: str) -> Iterator[None]:
    """Let who has this home reach these hosts, all of them this machine, by ``~/.ssh/config``."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    key, users = folder / "id_ed25519", folder / "authorized_keys"
    own = asyncssh.generate_private_key("ssh-ed25519")
    own.write_private_key(str(key))
    own.write_public_key(str(users))
    key.chmod(0o600)
    loop = asyncio.new_event_loop()
    stop, ports, up = asyncio.Event(), [], threading.Event()

    def ready(port: int) -> None:
        ports.append(port)
        up.set()

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    thread = threading.Thread(target=lambda: loop.run_until_complete(_serve(host_key, users, ready, stop)))
    thread.start()
    try:
        assert up.wait(20)
        (folder / "config").write_text(
            f"Host {' '.join(hosts)}\n  HostName 127.0.0.1\n  Port {ports[0]}\n  User test\n  IdentityFile {key}\n"
        )
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
