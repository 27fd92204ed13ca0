"""The reference grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_errors import Code
from triptych_oci import InvalidReference, Reference

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "whole", "short"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("quay.io/a/b/c-d__e.f_g", "quay.io/a/b/c-d__e.f_g:latest", "quay.io/a/b/c-d__e.f_g:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
        ("UPPER/app", "UPPER/app:latest", "UPPER/app:latest"),
        ("xn--n3h.com/app", "xn--n3h.com/app:latest", "xn--n3h.com/app:latest"),
        ("a/b:_T.a-g", "docker.io/a/b:_T.a-g", "a/b:_T.a-g"),
        ("reg.io/" + "a" * 255, "reg.io/" + "a" * 255 + ":latest", "reg.io/" + "a" * 255 + ":latest"),
    ],
)
def test_names_are_normalized(text: str, whole: str, short: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == whole
    assert Reference.parse(whole) == Reference.parse(short) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":latest",
        "@" + DIGEST,
        "app:",
        "app@",
        "app@sha256:short",
        f"app@md5:{HEX}",
        f"app@SHA256:{HEX}",
        f"app@{DIGEST}@{DIGEST}",
        HEX,
        "docker.io/App",
        "UPPER",
        "a//b",
        "/app",
        "app/",
        "-app",
        "app-",
        "a..b",
        "a___b",
        "a b",
        "app:ta g",
        "app:" + "t" * 129,
        "app:-tag",
        "../etc",
        "reg.io/../app",
        "reg.io:port/app",
        "-reg.io/app",
        "http://reg.io/app",
        "äpp",
        "app\n",
        "app:tag\n",
        "reg.io\n/app",
        "reg.io/" + "a" * 256,
        "a/" * 5000,
    ],
)
def test_what_is_no_reference_is_named(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert repr(text)[1:40].rstrip("'") in str(caught.value)
    assert len(str(caught.value)) < 700


def test_parts() -> None:
    reference = Reference.parse(f"quay.io/org/app:v1@{DIGEST}")
    assert (reference.domain, reference.path, reference.tag) == ("quay.io", "org/app", "v1")
    assert reference.selector == reference.digest == DIGEST
    assert reference.canonical == f"quay.io/org/app@{DIGEST}"
    assert Reference.parse("app").canonical == "docker.io/library/app:latest"
    assert Reference.parse("app", default_tag=False).tag is None


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert str(reference).isascii()


@given(
    st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,5}){0,3}", fullmatch=True),
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)),
)
def test_well_formed_names_round_trip(path: str, tag: str | None) -> None:
    reference = Reference.parse(f"reg.example:5000/{path}" + (f":{tag}" if tag else ""))
    assert (reference.path, reference.tag) == (path, tag or "latest")
    assert Reference.parse(str(reference)) == reference
