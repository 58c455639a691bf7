# ruff: noqa: RUF001
"""Strings that a hostile client or file may hold, where the dashboard expects a name, a number or a host.

``STRINGS`` is one corpus for all places. Strings that are markup set ``window.pwned`` where they become so.
``SECRET`` stands for the path of a file outside the runs directory: ``aimed`` puts a real one in its place.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, quote_from_bytes

SECRET = "@SECRET@"
MARK = "window.pwned=1"

_UP = ("../", "..\\", "....//", "..;/", "%2e%2e/", "%2e%2e%2f", "..%2f", "%252e%252e%252f", "..%5c", "..%00/")
_ODD_UP = (
    "%c0%ae%c0%ae/",
    "..%c0%af",
    "..%ef%bc%8f",
    "．．／",
    "..／",
    "‥/",
    "%u002e%u002e/",
    "./../",
    ".../",
)
_DEPTHS = (1, 2, 3, 5, 12)
_TARGETS = ("etc/passwd", "metadata.json", "runs/../secret/key.txt")
TRAVERSALS = (
    *(up * depth + target for up in _UP for depth in _DEPTHS for target in _TARGETS),
    *(up * 4 + "etc/passwd" for up in _ODD_UP),
    *(f"{lead}{'../' * 6}etc/passwd" for lead in ("api/", "api/runs/", "vendor/", "/", "//", "./", "x/")),
    *("../" * depth for depth in range(1, 9)), ".", "..", "...", "/", "//", "\\", "..\\..", "~", "~root",
    "~/.ssh/id_rsa", ".git/config", ".env", ".lock", "/etc/passwd", "//etc/passwd", "///etc///passwd",
    "/etc/passwd%00.js", "/etc/passwd\0.js", "/etc/./passwd", "file:///etc/passwd",
    "file://localhost/etc/passwd", "C:\\Windows\\win.ini", "C:/Windows/win.ini", "C:",
    "\\\\server\\share\\file", "//server/share/file", "CON", "NUL", "COM1", "aux.json",
    "metadata.json::$DATA", "/proc/self/environ", "/proc/self/cmdline", "/proc/self/fd/0",
    "/proc/self/maps", "/dev/zero", "/dev/stdin", "/dev/fd/3", "http://127.0.0.1/",
    "http://169.254.169.254/latest/meta-data/", "gopher://x", "phar://x.zip", SECRET, f"/{SECRET}",
    f"//{SECRET}", f".{SECRET}", f"../../../../../../../../..{SECRET}", f"file://{SECRET}",
    f"..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{SECRET}", f"{SECRET}%00", f"{SECRET}\0.json", f"{SECRET}/.",
    f"{SECRET}?x",
)  # fmt: skip

MARKUP = (
    f"<script>{MARK}</script>", f"</script><script>{MARK}</script>", f"<ScRiPt>{MARK}</sCrIpT>",
    f"<img src=x onerror={MARK}>", f'<img src="x" onerror="{MARK}">', f"<img/src=x/onerror={MARK}>",
    f"<svg onload={MARK}>", f"<svg><script>{MARK}</script></svg>",
    f"<svg><animate onbegin={MARK} attributeName=x>", f"<svg><set onbegin={MARK} attributename=x>",
    f"<body onload={MARK}>", f"<iframe src='javascript:parent.{MARK}'>",
    f'<iframe srcdoc="<script>parent.{MARK}</script>">', f"<details open ontoggle={MARK}>",
    f"<video><source onerror={MARK}>", f"<audio src=x onerror={MARK}>", f"<input autofocus onfocus={MARK}>",
    f"<select autofocus onfocus={MARK}>", f"<textarea autofocus onfocus={MARK}>",
    f"<marquee onstart={MARK}>", f"<object data='javascript:{MARK}'>", f"<embed src='javascript:{MARK}'>",
    f"<a href='javascript:{MARK}' id=x>click</a>", f"<a href=javascript&colon;{MARK}>x</a>",
    f"<math><mi xlink:href='javascript:{MARK}'>x</mi></math>",
    f"<link rel=stylesheet href='data:text/css,*{{}}' onload={MARK}>", f"<style onload={MARK}></style>",
    "<style>*{display:none}</style>", "<style>@import 'http://evil.example/x.css'</style>",
    "<base href='http://evil.example/'>", "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action=http://evil.example/><input name=a></form>", "<template><img src=x></template>",
    "<plaintext>", "<!--", "-->", "<![CDATA[", "]]>", "<?xml version='1.0'?>", "<!DOCTYPE html>",
    "</body></html>", "</title>", "</style>", "</textarea>", "</template>", f'"><script>{MARK}</script>',
    f"'><script>{MARK}</script>", f"`><script>{MARK}</script>", f'" onmouseover="{MARK}',
    f"' onmouseover='{MARK}", f'" autofocus onfocus="{MARK}" x="', f"javascript:{MARK}",
    f"JaVaScRiPt:{MARK}", f"java\tscript:{MARK}", f"\x01javascript:{MARK}", f"javascript://%0a{MARK}",
    f"vbscript:{MARK}", f"data:text/html,<script>{MARK}</script>",
    "data:text/html;base64,PHNjcmlwdD4xPC9zY3JpcHQ+", "//evil.example/x.js", "http://evil.example/x.png",
    f"&lt;script&gt;{MARK}&lt;/script&gt;", f"&#60;script&#62;{MARK}&#60;/script&#62;",
    f"&#x3c;script&#x3e;{MARK}", f"\\u003cscript\\u003e{MARK}", f"\\x3cscript\\x3e{MARK}",
    f"%3Cscript%3E{MARK}%3C/script%3E", f"%253Cscript%253E{MARK}", f"＜script＞{MARK}＜/script＞",
    f"<\0script>{MARK}</script>", f"<scr<script>ipt>{MARK}</script>",
    f"<x onclick={MARK} style=position:fixed;inset:0>x</x>",
    f"<div style=\"background:url('javascript:{MARK}')\">x</div>", "<img src='http://evil.example/x.png'>",
    "<img srcset='http://evil.example/x.png 1x'>", "<b>bold</b>", "<h1>big</h1>", "a<b", "a>b", "a&b",
    "&amp;", "&nbsp;", "&", "<", ">", "</", "<>", "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{%raw%}",
    "{{constructor.constructor('window.pwned=1')()}}", "[[${7*7}]]", "${alert`1`}", "`${window.pwned=1}`",
    "');window.pwned=1;//", '");window.pwned=1;//', "\\');window.pwned=1;//", "*/window.pwned=1;/*",
    ";window.pwned=1;",
)  # fmt: skip

TEXTS = (
    "", " ", "\t", "\n", "\r\n", "\0", "\x7f", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\b\b\b", "\u0085",
    "\u00a0", "'", '"', "`", "''", '""', "\\", "\\\\", "\\'", '\\"', "'\"`\\", "' OR '1'='1",
    "'; DROP TABLE runs; --", "1 UNION SELECT 1", "$(touch pwned)", "`touch pwned`", "; touch pwned",
    "| touch pwned", "&& touch pwned", "$HOME", "${HOME}", "%PATH%", "%s%s%s%n", "%d", "%", "%%", "%zz",
    "%0", "%e2%28%a1", "%ff%fe", "%00", "%0d%0aSet-Cookie:%20pwned=1", "%0a", "%20", "+",
    "\r\nSet-Cookie: pwned=1", "\r\n\r\n<script>window.pwned=1</script>", "\nSet-Cookie: pwned=1",
    "a\r\nHost: evil.example", "a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1",
    "x\u010d\u010aSet-Cookie: pwned=1", "\u2028window.pwned=1", "\u2029window.pwned=1",
    "{0.__class__.__init__.__globals__}", "{__import__('os')}", "__proto__", "constructor", "prototype",
    "toString", "valueOf", "hasOwnProperty", "__defineGetter__", "then", "length", "__class__", "__dict__",
    "self", "config", "null", "undefined", "true", "false", "None", "[object Object]", "NaN", "nan",
    "Infinity", "-Infinity", "inf", "-inf", "1e999", "-1e999", "1e-999", "-0", "-1", "0", "00", "1.5",
    "1,5", "0x10", "0b1", "0o7", "1_000", "+5", " 5 ", "5\0", "٣", "１２", "²", "½", "Ⅷ", "1e5", "--5", "5-",
    "9" * 20, "9" * 400, "-" + "9" * 40, "0." + "0" * 400 + "1", "4294967296", "9223372036854775808",
    "18446744073709551616", "9007199254740993", "2147483648", "-2147483649", "*", "?", "**", "[a-z]", "[",
    "]", "[!]", "{a,b}", "(a+)+$", "a" * 40 + "!", "^(([a-z])+.)+[A-Z]([a-z])+$", ".*", "\\d", "(?P<x>",
    "ids=a&ids=b", "a&points=9", "a=b", "a;b", "a,b", ",", ",,,,", "a,,b", ",a", "#", "#/run/x", "?",
    "?a=b", "a?b#c", "a/b", "a//b", "a\\b", "a:b", "a@b", "user:pass@evil.example", "train.", ".train",
    "train..x", "train.extras.", "train.extras.__proto__", "metrics.", "metrics.\0", "metrics.constructor",
    "eval.", "mean:", "mean:0", "mean:-1", "mean:1e9", "mean:nan", "mean:" + "9" * 30, "ema:", "ema:1",
    "ema:2", "ema:-1", "ema:nan", "ema:0.9999999999999999999", "ema:1e999", "median:5", "mean:5:5",
    "mean 5", "mean:٣", "steps", "seconds", "\u202egnp.exe",
    "\u202e\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u2066abc\u2069", "\u200babc", "a\u200db",
    "\ufeffabc", "\u061cabc", "שלום עולם", "مرحبا بالعالم", "日本語の名前", "한국어",
    "Ünïcödé", "e\u0301", "\u00e9",
    "İı", "ﬁ", "Ａ", "𝒜𝓁𝑒𝓇𝓉", "💣" * 20, "👩‍👩‍👧‍👦", "🏴\U000e0067\U000e0062\U000e007f",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d" * 12, "\uffff", "\ufffe", "\ufffd", "\U0010ffff",
    "\ue000", "\ud800", "\udfff\ud800", "a\ud83d", "\u0300" * 50, "\u202a" * 50, "A" * 200, "ä" * 100,
    "日" * 80, "A" * 256, "A" * 2_000, "A" * 9_000, "a " * 100, "../" * 2_000, "%2e" * 300, "," * 3_000,
    "<" * 500, "&" * 500, "[" * 300, '{"a":' * 100, "0" * 16, "f" * 16, "F" * 16, "g" * 16, "0" * 15,
    "0" * 17, "0" * 32, "0123456789abcdef\n", "0123456789abcdef/..", "0123456789abcdef%00",
    "0123456789abcdef,../../etc", "０１２３４５６７８９abcdef", " 0123456789abcdef",
    "W/\"x\"", "*/*", "no-cache",
    "close", "chunked", "bytes=0-", "gzip, deflate", "Thu, 01 Jan 1970 00:00:00 GMT", "Bearer x",
    "Basic Og==",
)  # fmt: skip

FOREIGN_HOSTS = (
    "evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:{port}", "evil.example#localhost", "evil.example/127.0.0.1", "localhost@evil.example",
    "localhost, evil.example", "localhost evil.example", "evil.example@localhost", "evil.example\t",
    "xlocalhost", "localhostx", "local host", "LOCALHOST.EVIL", "127.0.0.2.evil", "127.0.0.1x", "x127.0.0.1",
    "0.0.0.0:{port}", "2130706433", "0x7f000001", "0177.0.0.1", "127.1.evil", "[evil]", "[::ffff:8.8.8.8]",
    "[::]", "[]", "::1]", "", " ", ".", "..", "*", "null", "undefined", "file://", "http://localhost",
    "https://evil.example", "//evil.example", "../../etc/passwd", "<script>window.pwned=1</script>",
    "\"'><img src=x onerror=window.pwned=1>", "xn--lcalhost-9ya", "lоcalhost", "localhost\u200b",
    "localhost%00", "localhost%0d%0a", "localhost\tevil", "A" * 300, "169.254.169.254", "8.8.8.8",
    "10.0.0.1:{port}", "metadata.google.internal", "intranet", "printer.local",
)  # fmt: skip
"""Values of ``Host`` that name another machine, or none; ``{port}`` is the server's port."""

STRINGS = tuple(dict.fromkeys((*TRAVERSALS, *MARKUP, *TEXTS)))


def aimed(text: str, secret: Path) -> str:
    """The string with the path of a real file in it."""
    return text.replace(SECRET, str(secret))


def as_path(text: str) -> tuple[bytes, bytes]:
    """A string as a part of a request's target: escaped as it should be, and as raw as HTTP allows.

    The raw form keeps slashes, dots and escapes; only what would end the request line is escaped.
    """
    data = text.encode("utf-8", "surrogatepass")
    raw = b"".join(bytes([byte]) if 0x20 < byte < 0x7F else b"%%%02X" % byte for byte in data)
    return quote_from_bytes(data, safe="").encode(), raw


def is_encodable(text: str) -> bool:
    """Whether it is valid Unicode, as JSON and file names of stoker are."""
    try:
        quote(text)
    except UnicodeEncodeError:
        return False
    return True


def fits_a_file_name(text: str) -> bool:
    """Whether a Linux file can have this name."""
    return (
        is_encodable(text)
        and text not in ("", ".", "..")
        and not {"/", "\0"} & set(text)
        and len(text.encode()) <= 255
    )
