"""Text as people's editors write it, and numbers and names in it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.errors import DataError, UsageError
from metasynth.text import (
    RepeatedKeyError,
    by,
    expanded,
    parse_json,
    printable,
    read_lines,
    shortened,
    shown,
    whole_number,
    without_comment,
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_editors_write(tmp_path, encoding, end):
    path = tmp_path / "t.txt"
    path.write_bytes(end.join(["größe  ", "", "a\tb\x0cc", ""]).encode(encoding))
    assert read_lines(path) == ["größe  ", "", "a\tb\x0cc", ""]


def test_big_endian_text_with_its_mark(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffé\n1".encode("utf-16-be"))
    assert read_lines(path) == ["é", "1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\r\nb\rcaf\xe9\n", "t.txt, line 3: expected text in UTF-8, got the byte 0xE9; save the file as UTF-8"),
        (b"a\nb\0\n", "t.txt, line 2: expected text, got a NUL byte; save the file as UTF-8"),
        ("ab".encode("utf-16-le"), "t.txt, line 1: expected text, got a NUL byte; save the file as UTF-8"),
        (b"\xff\xfea\0b", "t.txt: begins as UTF-16 and is no such text (truncated data)"),
        (b"\x1f\x8b\x08\x00", "t.txt, line 1: expected text in UTF-8, got the byte 0x8B; save the file as UTF-8"),
    ],
)
def test_what_is_no_text_is_a_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_lines(Path("t.txt"))
    assert str(raised.value) == message
    with pytest.raises(UsageError) as raised:
        read_lines(Path("t.txt"), UsageError, "--mapping t.txt")
    assert str(raised.value) == f"--mapping {message}"


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metasynth.text.MOST_BYTES", 1 << 20)
    Path("large.txt").write_bytes(bytes(3 << 20))
    for name, message in (
        ("gone.txt", "gone.txt: the file is missing"),
        (".", ".: expected a text file, got a folder"),
        ("large.txt", "large.txt: expected text of at most 1 MiB, got 3 MiB"),
    ):
        with pytest.raises(DataError) as raised:
            read_lines(Path(name))
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("odd/a#1.nii.gz", "odd/a#1.nii.gz"),
        ("a.nii  # last", "a.nii  "),
        ("a.nii\t#last", "a.nii\t"),
        ("# all", ""),
        ("  # all", "  "),
        ('2,"grey # 1"  # left', '2,"grey # 1"  '),
        ('2; "a "" # b"', '2; "a "" # b"'),
        ('5" lesion # c', '5" lesion '),
        ("#", ""),
        ("", ""),
    ],
)
def test_comments_begin_a_line_or_follow_a_blank(line, text):
    assert without_comment(line) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("0", 0), ("007", 7), (" 12 ", 12), ("+3", 3), ("-3", -3), ("9" * 18, 10**18 - 1)),
        *((text, None) for text in ("²", "٣", "1_0", "1.0", "", "+", "--1", "1 2", "9" * 19, "9" * 5000, "1e3", "nan")),
    ],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number


@given(st.text())
def test_any_text_is_a_number_or_none(text):
    assert whole_number(text) in (None, *([int(text.strip())] if text.strip().lstrip("+-").isdecimal() else []))
    assert printable(text.encode(errors="surrogateescape").decode(errors="surrogateescape")).isprintable()


def test_names_that_cannot_be_printed():
    assert printable(os.fsdecode(b"caf\xe9")) == "caf%E9"
    assert printable("a\x1b[31m\u200b ü") == "a%1B[31m%E2%80%8B ü"
    printable(os.fsdecode(bytes(range(1, 256)))).encode()


def test_long_text_is_shortened():
    assert shown("a'b") == '"a\'b"'
    assert shown("x" * 5000) == f"'{'x' * 40}...{'x' * 20}' (5000 characters)"
    assert shortened("x" * 5000) == f"{'x' * 40}...{'x' * 20} (5000 characters)"
    assert shortened("1,2") == "1,2"


def test_a_user_that_is_not_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a") == Path("/home/me/a")
    assert expanded("~nobody-of-that-name/a") == Path("~nobody-of-that-name/a")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((3, 4, 5), "3 x 4 x 5"),
        ((1.0, 0.5), "1 x 0.5"),
        (np.array([0.25, 2.0]), "0.25 x 2"),
        (np.array([7, 9]), "7 x 9"),
        ((12345678, 10**400), f"12345678 x {10**400}"),
        ((1e-9,), "1e-09"),
        ((), ""),
    ],
)
def test_sizes_in_messages(numbers, text):
    assert by(numbers) == text


@pytest.mark.parametrize(
    ("text", "key"),
    [('{"a": 1, "a": 1}', "'a'"), ('[{"b": {"c": 1, "d": 2, "c": 3}}]', "'c'"), ('{"a": 1, "\\u0061": 2}', "'a'")],
)
def test_json_with_a_key_twice_is_none(text, key):
    with pytest.raises(RepeatedKeyError, match=f"^the key {key} is given twice$"):
        parse_json(text)


def test_other_json_is_what_the_standard_library_reads():
    text = '[{"a": 1, "b": {"a": [2.5, null, true]}}, {"a": 2}]'
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)
    with pytest.raises(ValueError, match="Expecting"):
        parse_json("{")
