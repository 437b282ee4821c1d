"""Helpers for tests with files from untrusted sources: malicious checkpoints, zip bombs, arbitrary bytes."""

import io
import os
import pickle
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from tests import fuzzing
from vimoclip import cli
from vimoclip.errors import UserError

quick_settings = settings(max_examples=150, deadline=None)
CPU = torch.device("cpu")


def refusal_message(call: Callable[[], object], path: Path) -> str:
    """Return the message of the UserError that `call` raises: one line that names the file."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert str(path) in text
    assert is_one_line(text)
    return text


def is_one_line(text: str) -> bool:
    """Whether the text has no line breaks and no control characters."""
    return not {unicodedata.category(letter) for letter in text} & {"Cc", "Cs", "Zl", "Zp"}


def exit_code(main: Callable[[list[str]], object], *argv: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: main([str(arg) for arg in argv]))
    return int(str(stop.value.code))


class OsSystemCall:
    """Object that calls os.system when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo ran > '{self.marker}'",)


def write_malicious_checkpoint(path: Path, file_format: str, marker: Path) -> Path:
    content = {"state_dict": {"a": torch.zeros(2), "b": OsSystemCall(marker)}}
    if file_format in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=file_format == "zip")
    elif file_format == "tar":
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                data = pickle.dumps(OsSystemCall(marker), 2)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        path.write_bytes(pickle.dumps(content, int(file_format[-1])))
    return path


def write_zip_bomb(path: Path, megabytes: int = 64) -> Path:
    """Write a compressed checkpoint of zeros, which expands 1000 times."""
    torch.save({"state_dict": {"a": torch.zeros(megabytes * 2**18)}}, path.with_suffix(".plain"))
    with (
        zipfile.ZipFile(path.with_suffix(".plain")) as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    path.with_suffix(".plain").unlink()
    return path


texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.text(' ,"\n\r\t0123=../\\a.mp4id,name', max_size=60)
file_contents = st.binary(max_size=60) | texts.map(str.encode)


def assert_read_or_refused(read: Callable[[Path], str], originals: list[Path], folder: Path) -> None:
    """Run `read` on 2000 damaged copies in processes that may crash; it must return "read" or "refused"."""
    assert [read(path) for path in originals] == ["read"] * len(originals)
    (folder / "damaged").mkdir()
    results = fuzzing.count_results(read, originals, folder / "damaged", 2000)
    print(dict(results))
    assert set(results) == {"read", "refused"}, results
