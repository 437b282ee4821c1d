"""YAML from untrusted sources: memory, time and nesting are bounded."""

import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.untrusted_files import exit_code, file_contents, is_one_line, quick_settings, refusal_message, texts
from TFAM import config as tfam_config
from TFAM import train_and_eval
from vimoclip.errors import UserError
from vimoclip.io import yaml_json


def nested_aliases(levels: int, line: str) -> str:
    return "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {line.replace('?', f'*a{n - 1}')}\n" for n in range(1, levels))


YAML_BOMBS = {
    "aliases": nested_aliases(30, "[?, ?, ?, ?, ?, ?, ?, ?, ?]"),
    "merge": nested_aliases(30, "{<<: [?, ?]}"),
    "itself": "a: &a [*a]\n",
    "itself in a mapping": "a: &a {b: *a}\n",
    "deep list": "a: " + "[" * 20_000,
    "deep mapping": "a: " + "{a: " * 20_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(440)),
    "long": "a: [" + "1, " * 2_000_000 + "]",
    "long and valid where it is cut": "a: 1\n" + "# comment\n" * 20_000,
    "long number": "a: 0x" + "f" * 10_000,
    "long decimal": "a: " + "9" * 10_000,
    "long sexagesimal": "a: 1" + ":1" * 40_000,
    "object": "a: !!python/object/apply:os.system [echo]",
    "bad date": "a: 2001-99-99",
    "bad tags": "a: !!bool maybe",
    "bad integer": "a: !!int ''",
    "two documents": "a: 1\n---\nb: 2\n",
    "control": "a: \x1b",
    "number as a key": "1: 2",
}


@pytest.mark.parametrize("name", YAML_BOMBS)
def test_yaml_bombs_are_refused_quickly(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML_BOMBS[name])
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert len(refusal_message(lambda: yaml_json.read_yaml(path), path)) < 1000
    assert time.monotonic() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_long_lines_that_are_no_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"# {'_' * 300}\npath: {'ab0' * 100}\n")
    assert yaml_json.read_yaml(tmp_path / "a.yaml") == {"path": "ab0" * 100}


@pytest.mark.parametrize("name", [name for name in YAML_BOMBS if name != "number as a key"])
def test_yaml_bombs_as_settings_are_exit_code_2(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(YAML_BOMBS[name])
    assert exit_code(train_and_eval.main, "--config", path) == 2
    value = YAML_BOMBS[name].removeprefix("a: ")
    assert exit_code(train_and_eval.main, "--config", "TFAM/configs/rgb.yaml", "--set", f"training.epochs={value}") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("key", ["training.lr", "training.epochs", "model.fusion", "data.limit", "data.motion_h5"])
@pytest.mark.parametrize(
    "value", ["[0x" + "f" * 90 + "]", "1e400", "-" + "9" * 90, "{a: {b: c}}", '["\\e[2J"]', ".nan"]
)
def test_invalid_values_of_settings_are_refused_in_one_line(key: str, value: str) -> None:
    if (key, value) == ("data.motion_h5", "1e400"):
        return  # a file may have that name
    with pytest.raises(UserError) as caught:
        tfam_config.load([], [f"{key}={value}"])
    assert is_one_line(str(caught.value))


yaml_lines = st.lists(
    st.sampled_from(
        [
            *(
                "a: &a 1",
                "b: &b {x: 1}",
                "c: [*a, *b]",
                "d: {<<: *b}",
                "e: &e [*e]",
                "- 1",
                "f: |",
                "  text",
                "g: !!int x",
            ),
            *(
                "? x",
                ": y",
                "h: 'q",
                "i: 2001-01-01",
                "j: {[1]: 2}",
                "%YAML 1.1",
                "---",
                "k: !!set {a}",
                "<<: *b",
                "*a : 1",
            ),
        ]
    ),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode())
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | texts.filter(str.isprintable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", max_size=5), inner, max_size=4),
    max_leaves=20,
)


@quick_settings
@given(file_contents | yaml_lines)
def test_arbitrary_yaml_is_refused_or_read_as_by_safe_load(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_bytes(data)
    try:
        read = yaml_json.read_yaml(path)
    except UserError as error:
        assert str(path) in str(error)
        assert is_one_line(str(error))
        return
    expected = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    assert read == expected or repr(read) == repr(expected)


@quick_settings
@given(st.dictionaries(st.text("abc_", min_size=1, max_size=5), plain_values, max_size=4))
def test_yaml_round_trips(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    path = yaml_json.write_yaml(tmp_path_factory.mktemp("yaml") / "a.yaml", content)
    assert yaml_json.read_yaml(path) == content
