"""fetch against a loopback server that fails in every way seen in the field: a verified file, or one clear error."""

import contextlib
import copy
import gzip
import hashlib
import http.server
import io
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lstm_np.data import DownloadError, download, fetch, transport
from lstm_np.data.download import is_valid, reachable
from lstm_np.data.limits import Limits
from lstm_np.data.mnist import PinnedFile

ROOT = Path(__file__).resolve().parents[2]
CONTENT = {
    "big.gz": gzip.compress(b"".join(hashlib.sha256(bytes([k])).digest() for k in range(200)), mtime=0),
    "small.gz": gzip.compress(b"labels", mtime=0),
}
FILES = tuple(PinnedFile(name, len(data), hashlib.sha256(data).hexdigest(), 0, "") for name, data in CONTENT.items())
LIMITS = Limits(connect=2.0, read=0.25, total=3.0, rounds=1, pause=0.01)
PAGE = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /FAULT/NAME: the file of that name, spoilt in the way of that fault."""

    server: "Server"

    def log_message(self, *_args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        _, fault, name = self.path.split("/", 2)
        self.server.requests.append((fault, name))
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            if fault.isdigit():
                self.send_error(int(fault))
            else:
                getattr(self, fault)(CONTENT[name])

    def reply(self, body, length=None, kind="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def redirect(self, address):
        self.send_response(302)
        self.send_header("Location", address)
        self.end_headers()

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def wait(self):
        self.server.stopping.wait(20)

    def ok(self, data):
        self.reply(data, len(data))

    def no_length(self, data):
        self.reply(data)

    def moved(self, data):
        self.redirect(f"{self.server.address}/ok/{self.path.rsplit('/', 1)[1]}")

    def page(self, data):
        self.reply(PAGE, len(PAGE), "text/html")

    def page_no_length(self, data):
        self.reply(PAGE, kind="text/html")

    def page_padded(self, data):
        self.reply(PAGE.ljust(len(data)), len(data))

    def empty(self, data):
        self.reply(b"", 0)

    def empty_no_length(self, data):
        self.reply(b"")

    def short(self, data):
        self.reply(data[:-1])

    def length_less(self, data):
        self.reply(data, len(data) - 1)

    def length_more(self, data):
        self.reply(data, len(data) + 1)

    def length_not_kept(self, data):
        self.reply(data[: len(data) // 2], len(data))

    def length_nonsense(self, data):
        self.reply(data, "many")

    def cut_chunk(self, data):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(data) + data[:20])

    def bad_chunk(self, data):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")

    def longer(self, data):
        self.reply(data + b"x")

    def endless(self, data):
        self.reply(data)
        while not self.server.stopping.is_set():
            self.wfile.write(data)

    def reset_in_body(self, data):
        self.reply(data[:20], len(data))
        self.wfile.flush()
        self.reset()

    def reset_at_once(self, data):
        self.reset()

    def no_answer(self, data):
        self.wait()

    def hang_in_body(self, data):
        self.reply(data[:20], len(data))
        self.wait()

    def drip(self, data):
        self.send_response_only(200)
        self.end_headers()
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.server.stopping.wait(0.05):
                return

    def drip_header(self, data):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b"X")

    def not_http(self, data):
        self.wfile.write(b"SSH-2.0-server\r\n" + data)

    def redirect_loop(self, data):
        self.redirect(f"{self.server.address}{self.path}")

    def redirect_to_http(self, data):
        self.redirect("http://plain.invalid/mnist/" + self.path.rsplit("/", 1)[1])

    def redirect_to_file(self, data):
        self.redirect("file:///etc/hostname")

    def redirect_to_loopback_http(self, data):
        self.redirect(f"{self.server.plain_address}/ok/{self.path.rsplit('/', 1)[1]}")

    def damaged(self, data):
        self.reply(bytes([*data[:-1], data[-1] ^ 1]), len(data))

    def other_file(self, data):
        other = next(content for content in CONTENT.values() if content is not data)
        self.reply(other, len(other))


SILENCE = 0.5  # seconds without an answer, which a busy machine needs for one now and then
FAULTS = {
    **{str(code): f"HTTP {code}" for code in (400, 403, 404, 410, 429, 500, 502, 503)},
    "page": "(a web page)",
    "page_no_length": "sent a web page",
    "page_padded": "sent a web page",
    "empty": "announces 0 bytes",
    "empty_no_length": "sent 0 of",
    "short": "sent",
    "length_less": "announces",
    "length_more": "announces",
    "length_not_kept": "sent",
    "length_nonsense": "announces many bytes",
    "cut_chunk": "IncompleteRead",
    "bad_chunk": "IncompleteRead",
    "longer": "sent more than",
    "endless": "sent more than",
    "reset_in_body": "reset",
    "reset_at_once": "reset",
    "no_answer": f"no answer for {SILENCE:g} s",
    "hang_in_body": f"no answer for {SILENCE:g} s",
    "drip": "time limit is used up",
    "drip_header": "time limit is used up",
    "not_http": "SSH-2.0-server",
    "redirect_loop": "infinite loop",
    "redirect_to_http": "not an https address",
    "redirect_to_file": "not allowed",
    "damaged": "sent a file with sha256",
    "other_file": "announces",
}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []
        self.stopping = threading.Event()
        self.address = self.plain_address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that gave up is what half of these tests are about."""

    def mirror(self, fault):
        return f"{self.address}/{fault}/"


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server():
    with running(Server()) as server:
        yield server


def get(folder, *mirrors, files=FILES, limits=LIMITS, **keywords):
    return fetch(folder, mirrors, files=files, limits=limits, **keywords)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.mark.parametrize("mirror", ["ok", "no_length", "moved"])
def test_whole_files_arrive_with_progress(server, tmp_path, mirror):
    seen = []
    paths = get(tmp_path / "new" / "folder", server.mirror(mirror), progress=lambda *step: seen.append(step))
    assert contents(tmp_path / "new" / "folder") == CONTENT
    assert [path.name for path in paths] == list(CONTENT)
    assert [step for step in seen if step[1] == step[2]] == [(n, len(data), len(data)) for n, data in CONTENT.items()]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["first", "last", "all"])
def test_fault(server, tmp_path, fault, place):
    chain = {"first": [fault, "ok"], "last": ["404", fault], "all": [fault, fault]}[place]
    total = 1.5 if "time limit" in FAULTS[fault] else 10.0  # what is not slow has time, on a busy machine too
    limits = Limits(connect=2.0, read=SILENCE, total=total, rounds=1, pause=0.01)
    start = time.perf_counter()
    if place == "first":
        get(tmp_path, *map(server.mirror, chain), files=FILES[:1], limits=limits)
        assert contents(tmp_path) == {"big.gz": CONTENT["big.gz"]}
    else:
        with pytest.raises(DownloadError) as caught:
            get(tmp_path, *map(server.mirror, chain), files=FILES[:1], limits=limits)
        assert contents(tmp_path) == {}
        assert len(caught.value.causes) == 2
        for mirror, cause in zip(chain, caught.value.causes, strict=True):
            assert cause.startswith(server.mirror(mirror) + ": ")
            assert FAULTS[mirror] in cause
            assert cause in str(caught.value)
        assert "could not download big.gz" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert time.perf_counter() - start < 5


def test_number_of_faults():
    assert len(FAULTS) >= 24


def test_every_error_is_retried_in_a_second_round(server, tmp_path):
    limits = Limits(connect=2.0, read=0.25, total=3.0, rounds=2, pause=0.01)
    with pytest.raises(DownloadError) as caught:
        get(tmp_path, server.mirror("503"), server.mirror("damaged"), files=FILES[:1], limits=limits)
    assert [fault for fault, _ in server.requests] == ["503", "damaged"] * 2
    assert len(caught.value.causes) == 4


def test_total_time_is_bounded(server, tmp_path):
    limits = Limits(connect=2.0, read=5.0, total=0.6, rounds=5, pause=0.01)
    start = time.perf_counter()
    with pytest.raises(DownloadError, match=r"gave up after 0.6 s|time limit"):
        get(tmp_path, server.mirror("drip"), server.mirror("no_answer"), limits=limits)
    assert time.perf_counter() - start < 4


def test_mirror_that_answered_is_asked_first_from_then_on(server, tmp_path):
    get(tmp_path, server.mirror("404"), server.mirror("ok"))
    assert server.requests == [("404", "big.gz"), ("ok", "big.gz"), ("ok", "small.gz")]


def test_valid_files_cost_no_network_access(server, tmp_path, monkeypatch):
    get(tmp_path, server.mirror("ok"))

    def refuse(*_args, **_keywords):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    get(tmp_path)  # not even a mirror is needed


@pytest.mark.parametrize("damage", [b"", CONTENT["big.gz"][:-1], b"x" * len(CONTENT["big.gz"]), PAGE])
def test_damaged_file_is_replaced(server, tmp_path, damage):
    (tmp_path / "big.gz").write_bytes(damage)
    get(tmp_path, server.mirror("ok"))
    assert contents(tmp_path) == CONTENT
    assert server.requests == [("ok", "big.gz"), ("ok", "small.gz")]


def test_damaged_file_stays_where_no_better_one_can_be_had(server, tmp_path):
    (tmp_path / "big.gz").write_bytes(b"old")
    with pytest.raises(DownloadError):
        get(tmp_path, server.mirror("404"))
    assert contents(tmp_path) == {"big.gz": b"old"}


def test_keyboard_interrupt_leaves_no_half_file(server, tmp_path):
    def interrupt(*_step):
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, server.mirror("ok"), progress=interrupt)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_not_blamed_on_the_mirrors(server, tmp_path, monkeypatch, call):
    def refuse(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(DownloadError, match=r"cannot write to .*: No space left on device") as caught:
        get(tmp_path, server.mirror("ok"), server.mirror("ok"))
    assert caught.value.causes == ()
    assert len(server.requests) == 1
    assert contents(tmp_path) == {}


def test_order_of_the_durable_rename(server, tmp_path, monkeypatch):
    done = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in real:
        monkeypatch.setattr(os, name, lambda *arguments, name=name: (done.append(name), real[name](*arguments))[1])
    get(tmp_path, server.mirror("ok"), files=FILES[:1])
    assert done == ["fsync", "replace", "fsync"]


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match="cannot write to"):
        get(tmp_path / "file" / "folder", server.mirror("ok"))
    assert server.requests == []


def test_only_old_parts_are_removed(server, tmp_path):
    for name, age in ((".big.gz.1.aa.part", 7200), (".big.gz.2.bb.part", 10)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    get(tmp_path, server.mirror("ok"))
    assert set(contents(tmp_path)) == {*CONTENT, ".big.gz.2.bb.part"}


@pytest.mark.parametrize(
    "mirror",
    [
        "http://example.invalid/",
        "http://localhost:1/",
        "http://127.0.0.1.example.invalid/",
        "ftp://h/",
        "file:///etc/",
        "x",
    ],
)
def test_only_https_mirrors(tmp_path, mirror):
    with pytest.raises(DownloadError, match="is not an https address"):
        get(tmp_path, mirror)


def test_no_mirror(tmp_path):
    with pytest.raises(DownloadError, match="no mirror is given"):
        get(tmp_path)


def test_name_that_cannot_be_resolved_and_port_that_is_closed(tmp_path, monkeypatch):
    def unknown(*_args, **_keywords):
        raise socket.gaierror(-2, "Name or service not known")

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="Connection refused"):
            get(tmp_path, closed)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"mirror.invalid.*Name or service not known"):
        get(tmp_path, "https://mirror.invalid/")


def test_error_says_how_to_do_it_by_hand_and_can_be_rebuilt(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        get(tmp_path, server.mirror("404"))
    text = caught.value.help()
    assert all(file.name in text and file.sha256 in text for file in FILES)
    assert str(tmp_path) in text
    other = copy.copy(caught.value)
    assert (str(other), other.causes, other.help()) == (str(caught.value), caught.value.causes, text)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from lstm_np.data import fetch
from lstm_np.data.mnist import PinnedFile
files = [PinnedFile(n, int(s), h, 0, "") for n, s, h in (row.split(",") for row in sys.argv[4:])]
for number in range(8):
    fetch(Path(sys.argv[1], str(number)), [sys.argv[2]], files=files)
"""


def child(folder, mirror):
    rows = [f"{file.name},{file.size},{file.sha256}" for file in FILES]
    command = [sys.executable, "-c", CHILD, str(folder), mirror, str(ROOT), *rows]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def test_processes_that_fill_one_folder_do_not_harm_each_other(server, tmp_path):
    children = [child(tmp_path, server.mirror("ok")) for _ in range(4)]
    for process in children:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    assert all(contents(tmp_path / str(number)) == CONTENT for number in range(8))


def test_threads_that_fill_one_folder_do_not_harm_each_other(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: get(tmp_path, server.mirror("ok"), progress=lambda *_: time.sleep(0.02)), range(4)))
    assert contents(tmp_path) == CONTENT


def test_no_more_is_read_than_one_byte_beyond_the_file():
    asked = []

    class Endless:
        def read1(self, count):
            asked.append(count)
            return b"x" * count

    with pytest.raises(download._MirrorError, match="sent more than"):
        download._receive(Endless(), io.BytesIO(), FILES[0], None)
    assert sum(asked) == FILES[0].size + 1


def test_killed_download_heals_itself(server, tmp_path):
    process = child(tmp_path, server.mirror("drip"))
    folder = tmp_path / "0"
    deadline = time.monotonic() + 20
    while not any(folder.glob(".*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert [name.endswith(".part") for name in contents(folder)] == [True]
    get(folder, server.mirror("ok"))
    assert {name: data for name, data in contents(folder).items() if not name.endswith(".part")} == CONTENT


class TestReachable:
    def test_one_mirror_that_answers_is_enough(self, server):
        assert reachable([server.mirror("503"), server.mirror("ok")], FILES[1], 2.0)

    @pytest.mark.parametrize("fault", ["403", "503", "reset_at_once", "redirect_to_http"])
    def test_error_is_no_answer(self, server, fault):
        assert not reachable([server.mirror(fault)], FILES[1], 2.0)

    def test_silence_ends_in_time(self, server):
        start = time.perf_counter()
        assert not reachable([server.mirror("no_answer"), server.mirror("drip_header")], FILES[1], 0.3)
        assert time.perf_counter() - start < 3

    def test_slow_mirror_does_not_hold_up_a_fast_one(self, server):
        start = time.perf_counter()
        assert reachable([server.mirror("no_answer"), server.mirror("ok")], FILES[1], 5.0)
        assert time.perf_counter() - start < 4

    def test_no_mirror(self):
        assert not reachable([], FILES[1], 0.1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make a certificate with")
class TestTLS:
    @pytest.fixture
    def secure(self, tmp_path_factory, server):
        folder = tmp_path_factory.mktemp("tls")
        certificate, key = folder / "cert.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-out", str(certificate), "-keyout", str(key)],
            check=True,
            capture_output=True,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        secure = Server()
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        secure.address = secure.address.replace("http:", "https:")
        secure.plain_address = server.address
        with running(secure):
            yield secure, certificate

    def test_unknown_certificate_is_refused(self, secure, tmp_path):
        with pytest.raises(DownloadError, match="certificate verify failed"):
            get(tmp_path, secure[0].mirror("ok"))
        assert contents(tmp_path) == {}

    def test_trusted_certificate_serves_and_never_leads_to_http(self, secure, tmp_path, monkeypatch, server):
        monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
        with pytest.raises(DownloadError, match=r"redirected to http://127.0.0.1.*not an https address"):
            get(tmp_path, secure[0].mirror("redirect_to_loopback_http"))
        assert server.requests == []
        with pytest.raises(DownloadError, match="certificate verify failed"):
            get(tmp_path, secure[0].mirror("ok").replace("127.0.0.1", "localhost"))
        get(tmp_path, secure[0].mirror("moved"))
        assert contents(tmp_path) == CONTENT


def test_no_read_begins_after_the_deadline():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"in time")
        for seconds, expected in ((5, contextlib.nullcontext()), (-1, pytest.raises(TimeoutError, match="used up"))):
            with transport._TimedReader(ours, LIMITS, time.monotonic() + seconds) as reader, expected:
                assert reader.read(2) in (b"in", b" t")


def test_certificates_cannot_be_switched_off():
    for module in (transport, download):
        text = Path(module.__file__).read_text()
        assert not any(word in text for word in ("_unverified", "CERT_NONE", "check_hostname", "verify_mode"))


def test_is_valid(tmp_path):
    path = tmp_path / "big.gz"
    assert not is_valid(path, FILES[0])
    path.write_bytes(CONTENT["big.gz"])
    assert is_valid(path, FILES[0])
    assert not is_valid(path, FILES[1])
    path.write_bytes(CONTENT["big.gz"][:-1] + b"x")
    assert not is_valid(path, FILES[0])
    assert not is_valid(tmp_path, FILES[0])
