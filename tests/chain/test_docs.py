"""The pages in docs/: quoted messages exist in the code, links have targets, named files exist."""

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest

from tests.conftest import REPOSITORY

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))


def messages() -> list[str]:
    """The messages that troubleshooting.md quotes."""
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^> (.+)$", text, flags=re.MULTILINE)


def text_of(node: ast.AST | None) -> str | None:
    """A string literal, with … for each filled-in value and single spaces."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    else:
        return None
    return re.sub("…+", "…", " ".join(text.split()))


def texts_of_call(call: ast.Call, assigned: dict[str, list[str]]) -> Iterator[str]:
    """The line `path: problem; hint` of a call such as UserError(problem, hint, path=path)."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}

    def values(node: ast.AST | None) -> list[str]:
        text = text_of(node)
        return [*assigned.get(node.id, []), "…"] if isinstance(node, ast.Name) else [text] if text else ["…"]

    problem = call.args[0] if call.args else named.get("problem")
    hint = call.args[1] if len(call.args) > 1 else named.get("hint")
    for pair in itertools.product(values(problem), values(hint) if hint else [""]):
        yield ("…: " if "path" in named else "") + "; ".join(filter(None, pair))


def texts_in_code() -> set[str]:
    """Every string literal in the code, and the messages that errors compose of several."""
    found = set()
    code = [path for folder in ("vimoclip", "TFAM") for path in (REPOSITORY / folder).rglob("*.py")]
    for path in [*code, *REPOSITORY.glob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assigned = defaultdict[str, list[str]](list)
        for node in nodes:
            if text := text_of(node):
                found.add(text)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (text := text_of(node.value)):
                assigned[node.targets[0].id].append(text)
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
                found |= set(texts_of_call(node, assigned))
    return found


TEXTS = texts_in_code()


@pytest.mark.parametrize("message", messages())
def test_a_message_in_troubleshooting_is_one_that_the_code_prints(message: str) -> None:
    assert any(message in text for text in TEXTS), message


def test_there_are_messages_of_every_stage() -> None:
    assert len(messages()) > 25


@pytest.mark.parametrize("page", [*(f"docs/{page.name}" for page in PAGES), "README.md", "dataset/README.md"])
def test_links_have_targets(page: str) -> None:
    place = REPOSITORY / page
    for target in re.findall(r"\]\(([^)\s]+)\)", place.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path, _, heading = target.partition("#")
        linked = (place.parent / path).resolve() if path else place
        assert linked.exists(), f"{page}: {target}"
        if heading:
            assert heading in headings(linked), f"{page}: {target}"


@pytest.mark.parametrize("page", [*(f"docs/{page.name}" for page in PAGES), "README.md", "dataset/README.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"\b(?:tests|vimoclip|TFAM|demo|benchmarks)/[\w/]+\.(?:py|sh|yaml|toml)\b", read(page))
    assert [path for path in set(named) if not (REPOSITORY / path).exists()] == []


def weights_named(text: str) -> set[tuple[str, str]]:
    """The names and tags of open_clip's weights, as `name/tag` or in a command."""
    tags = {tag for _, tag in open_clip.list_pretrained()}
    pairs = re.findall(r"`([\w-]+)/([\w-]+)`", text)
    commands = re.findall(r"--clip-model-name ([\w.-]+) --clip-pretrained ([\w-]+)", text)
    return {pair for pair in pairs if pair[1] in tags} | set(commands)


def test_the_weights_that_a_page_names_are_in_open_clip() -> None:
    named = {pair for page in PAGES for pair in weights_named(page.read_text(encoding="utf-8"))}
    assert len(named) > 12
    assert named <= set(open_clip.list_pretrained())


def test_recommended_backbones_have_published_results() -> None:
    page = read("docs/backbones-and-flow.md")
    recommendations, results = page.split("## Backbones")[0], page.split("### Published results of frozen encoders")[1]
    assert weights_named(recommendations)
    assert weights_named(recommendations) <= weights_named(results)


def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def headings(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub writes them."""
    lines = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
