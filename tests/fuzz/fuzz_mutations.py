"""Files changed at random: the same change for the same random state."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random

__all__ = ["mutated_archive", "mutated_bytes", "mutated_text"]

SIZES = (0, 1, 2, 3, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63)
"""Where lengths, offsets and counts overflow, or ask for more than there is."""
NUMBERS = (
    *map(str, SIZES),
    *("-1", "-0", "1e308", "1e400", "nan", ".nan", ".inf", "-.inf", "0x10", "0o7", "1_0", "1:60", "9" * 5000),
    *("2026-02-30", "true", "null", "''", '"\\uD800"', "[]", "{}", "0.1", "10000000"),
)
NAMES = ("../../escaped", "/escaped", "a/../../escaped", "C:\\escaped", "", "a" * 300, "config.json/deeper", "\x00")


def mutated_bytes(content: bytes, other: bytes, random: Random) -> bytes:
    """A file with one to four changes that know nothing of its format.

    Args:
        content: the file.
        other: another one, parts of which are put into it.
        random: decides.
    """
    for _ in range(random.choice((1, 1, 2, 4))):
        content = random.choice(_OF_BYTES)(content, other, random)
    return content


def mutated_text(content: bytes, other: bytes, random: Random) -> bytes:
    """A text with one to four words changed; one in five is changed as bytes."""
    if random.random() < 0.2:
        return mutated_bytes(content, other, random)
    words, others = (re.findall(r"\w+|\s+|.", text.decode("utf-8", "replace")) or [""] for text in (content, other))
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(words) + 1)
        random.choice(_OF_WORDS)(words, others, place, random)
    return "".join(words).encode("utf-8", "surrogatepass")


def mutated_archive(content: bytes, other: bytes, random: Random) -> bytes:
    """A ZIP archive with a member changed, exchanged, renamed or left out, whole again with right checksums.

    One in ten is changed as bytes instead, which checksums tell.
    """
    if random.random() < 0.1:
        return mutated_bytes(content, other, random)
    members, others = _members(content), _members(other)
    place = random.randrange(len(members))
    name, member = members[place]
    replaced = dict(others).get(name, random.choice(others)[1])
    match random.choice(("change",) * 12 + ("exchange", "rename", "drop", "repeat")):
        case "change":
            change = mutated_text if name.endswith((".json", ".txt")) else mutated_bytes
            members[place] = name, change(member, replaced, random)
        case "exchange":
            members[place] = name, replaced
        case "rename":
            members[place] = random.choice(NAMES), member
        case "drop":
            del members[place]
        case "repeat":
            members.append((random.choice((name, f"{name}/{name}", random.choice(NAMES))), member))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, member in members:
            archive.writestr(zipfile.ZipInfo(name), member)
    return file.getvalue()


def _members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _place(content: bytes, random: Random) -> int:
    """Half of the time near the begin or the end, where formats keep what the rest depends on."""
    near = min(512, len(content))
    return random.choice(
        (random.randrange(len(content) + 1), random.randint(0, near), len(content) - random.randint(0, near))
    )


def _slice(content: bytes, random: Random) -> slice:
    begin = _place(content, random)
    return slice(begin, begin + random.choice((1, 2, 4, 8, 16, 64, random.randint(1, 4096))))


def _flip_bits(content: bytes, other: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 3, 16)) if content else 0):
        changed[min(_place(content, random), len(content) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _replace(content: bytes, other: bytes, random: Random) -> bytes:
    chosen = _slice(content, random)
    count = len(content[chosen])
    byte = random.choice((b"\x00", b"\xff", None))
    written = random.randbytes(count) if byte is None else byte * count
    return content[: chosen.start] + written + content[chosen.stop :]


def _truncate(content: bytes, other: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def _delete(content: bytes, other: bytes, random: Random) -> bytes:
    chosen = _slice(content, random)
    return content[: chosen.start] + content[chosen.stop :]


def _repeat(content: bytes, other: bytes, random: Random) -> bytes:
    chosen = _slice(content, random)
    return content[: chosen.stop] + content[chosen] * random.choice((1, 2, 100)) + content[chosen.stop :]


def _splice(content: bytes, other: bytes, random: Random) -> bytes:
    return content[: _place(content, random)] + other[_place(other, random) :]


def _graft(content: bytes, other: bytes, random: Random) -> bytes:
    chosen = _slice(content, random)
    return content[: chosen.start] + other[chosen] + content[chosen.stop :]


def _blow_up(content: bytes, other: bytes, random: Random) -> bytes:
    form, bits = random.choice((("<B", 8), ("<H", 16), ("<I", 32), ("<Q", 64), (">I", 32)))
    number = struct.pack(form, random.choice(SIZES) % 2**bits)
    place = _place(content, random) // len(number) * len(number)
    return content[:place] + number + content[place + len(number) :]


_Change = Callable[[bytes, bytes, Random], bytes]
_OF_BYTES: tuple[_Change, ...] = (
    *(_flip_bits, _flip_bits, _replace, _truncate, _delete, _repeat, _splice, _graft, _blow_up, _blow_up, _blow_up),
)


def _other_number(words: list[str], others: list[str], place: int, random: Random) -> None:
    numbers = [index for index, word in enumerate(words) if word.isdigit()]
    if numbers:
        words[random.choice(numbers)] = random.choice(NUMBERS)


def _other_word(words: list[str], others: list[str], place: int, random: Random) -> None:
    words[place : place + 1] = [random.choice((random.choice(others), random.choice(words), random.choice(NUMBERS)))]


def _drop_words(words: list[str], others: list[str], place: int, random: Random) -> None:
    del words[place : place + random.choice((1, 1, 3, 10))]


def _repeat_words(words: list[str], others: list[str], place: int, random: Random) -> None:
    words[place:place] = words[place : place + random.choice((1, 3, 10))] * random.choice((1, 2, 2000))


def _insert(words: list[str], others: list[str], place: int, random: Random) -> None:
    marks = "{}[]()<>:,;#&*!|\"'\\%@`?-=\t\n\r\x00\x1b\x85\u2028\ufeff\U0001f600"
    words.insert(place, random.choice(marks) * random.choice((1, 1, 2, 3000)))


def _alias(words: list[str], others: list[str], place: int, random: Random) -> None:
    """YAML's "billion laughs", and values that hold themselves."""
    words.insert(place, random.choice((_laughs(3), _laughs(9), _laughs(30), "&a [*a]", "&a {b: *a}", "&a", "*a")))


def _laughs(levels: int) -> str:
    lines = [f"&l{level} [{', '.join([f'*l{level - 1}'] * 3)}]" for level in range(1, levels)]
    return f"[{', '.join(['&l0 [ha, ha]', *lines])}]"


_OfWords = Callable[[list[str], list[str], int, Random], None]
_OF_WORDS: tuple[_OfWords, ...] = (
    *(_other_number, _other_number, _other_number, _other_word, _drop_words, _repeat_words, _insert, _alias),
)
