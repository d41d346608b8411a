"""The files of a VOC folder: which ones to read, and one XML file in whatever encoding it declares.

The parser of the standard library knows UTF-8, UTF-16 and one-byte encodings; tools in East Asia write GBK,
EUC-KR, Shift-JIS and Big5. So the bytes are decoded here first. defusedxml refuses entities and external
references.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Set
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from curator.data.formats.files import IMAGE_SUFFIXES
from curator.errors import FormatError

_SIZE_LIMIT = 1 << 24
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
}
"""What tools write under a name reaches beyond the standard of that name; these hold it and more."""
_ALIASES = {"x-sjis": "cp932", "windows-31j": "cp932", "x-gbk": "gb18030", "x-euc-kr": "cp949"}


def stems(folder: Path, xmls: Path, split: str | None) -> list[str]:
    """Names of the XML files to read, without suffix: all of `xmls`, or those of a list in ImageSets/Main.

    Raises:
        FormatError: no XML files, or no such list.
    """
    known = {file.stem for file in xmls.glob("*.xml")}
    if split is None:
        if not known:
            raise FormatError(f"{folder}: expected XML files in Annotations/, found none")
        return sorted(known)
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        lists = sorted(file.stem for file in listing.parent.glob("*.txt"))
        splits = [name for name in lists if name.rpartition("_")[2] not in lists or "_" not in name]
        raise FormatError(
            f"{folder}: no split {split!r} in ImageSets/Main; found: {', '.join(splits) or 'none'}"
        )
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{listing}: expected names in UTF-8") from error
    return list(dict.fromkeys(_listed(line, known) for line in lines if line.strip()))


def _listed(line: str, known: Set[str]) -> str:
    """The XML file that a line of a split names: "name", "name 1" (lists of one class), "folder/name.jpg"."""
    text = line.strip()
    words = text.split()
    names = [text, *([text.rsplit(None, 1)[0]] if words[-1] in ("-1", "0", "1") else []), words[0]]
    plain = [name.replace("\\", "/").rpartition("/")[2] for name in names]
    for name in plain:
        for stem in (name, name.rpartition(".")[0]):
            if stem in known:
                return stem
    suffix = Path(plain[-1]).suffix
    return plain[-1].removesuffix(suffix) if suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else plain[-1]


def parse(file: Path) -> Element:
    """The root of an annotation file.

    Raises:
        FormatError: missing, too large, unreadable, with entities, or no <annotation>.
    """
    try:
        if file.stat().st_size > _SIZE_LIMIT:
            raise FormatError(f"{file.name}: expected at most {_SIZE_LIMIT} bytes of XML")
        root = ElementTree.fromstring(text_of(file.read_bytes()))
    except FileNotFoundError as error:
        raise FormatError(f"Annotations/{file.name} is missing") from error
    except DefusedXmlException as error:
        raise FormatError(f"{file.name}: refused, XML with entities ({type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{file.name}: not readable as XML in {error.encoding}; say the encoding in its first line, "
            'as in <?xml version="1.0" encoding="gbk"?>'
        ) from error
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f"{file.name}: not readable as XML ({' '.join(str(error).split())})") from error
    if root is None or root.tag != "annotation":
        raise FormatError(
            f"{file.name}: expected <annotation>, got {f'<{root.tag}>' if root is not None else 'nothing'}"
        )
    return root


def text_of(data: bytes) -> str:
    """The text of an XML file without its declaration. A byte order mark decides, then the first bytes, then
    the declaration; UTF-8 is the default.

    Raises:
        UnicodeDecodeError: other bytes than the encoding allows. LookupError: an unknown encoding.
    """
    text = data.decode(_encoding(data)).removeprefix("\ufeff")
    return _DECLARATION.sub("", text, count=1)


def _encoding(data: bytes) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if data[:2] in (b"<\0", b"\0<"):
        return "utf-16-le" if data[:1] == b"<" else "utf-16-be"
    match = _ENCODING.match(data)
    if match is None:
        return "utf-8"
    declared = match[1].decode("ascii").lower()
    name = codecs.lookup(_ALIASES.get(declared, declared)).name.replace("-", "_")
    if name.startswith(("utf_16", "utf_32")):
        return "utf-8"  # declared, but one byte a letter: what .NET writes from its own texts
    return _WIDER.get(name, name)
