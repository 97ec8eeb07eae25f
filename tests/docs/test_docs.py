"""Links and commands of the documentation: no page shows what is not there."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from tests.docs.commands import CONFIGS, commands, complaint
from tests.docs.markdown import anchors, broken_links, code, links, pages
from tests.tiny import ROOT

PAGES = pages()
names = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_leads_to_a_file_or_heading(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_of_a_page_is_one(page):
    assert faults(page.read_text()) == []


def faults(text: str) -> list[str]:
    """What is wrong with the commands of a page."""
    found = []
    # A dataclass of the page, such as the config of a method.
    own = re.findall(r"^    (\w+): \S+ = \S+$", text, re.MULTILINE)
    for line, complete in code(text):
        # `auxiliary_scenes.py --compare` is a config with flags of `train`.
        line = re.sub(r"^(?=(configs/)?\w+\.py --\w)", "scarce-jax train ", line)
        # A span that has one in its middle is a message.
        if re.search(r"\bscarce-jax " if complete else r"^(\S*/)?scarce-jax ", line):
            for argv in commands(line):
                fault = complaint(argv, complete=complete, own=own)
                found += [f"{line}: {fault}"] if fault else []
    return found


def of_docstring(text: str) -> list[str]:
    """The commands of a docstring, where they stand in sentences: up to " of ", a bracket, a full stop or a line's end.

    The next line belongs to a command if it begins with a flag.
    """
    text = re.sub(r"\n\s*(?=--\w)", " ", text.replace(";", "\n"))
    text = re.sub(r"\bscarce-jax\n\s*", "scarce-jax ", text)
    return [re.split(r"`| \(| of |[.,:]?\s*$|[.:] ", found)[0] for found in re.findall(r"scarce-jax [^\n]*", text)]


METHODS = [line.split(" | ") for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [")]


@pytest.mark.parametrize("row", METHODS, ids=[re.search(r"\w+", row[0])[0] for row in METHODS])
def test_the_figures_of_the_readme_stand_in_a_table_of_results(row):
    (page,) = links(row[0])
    cells = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    figures = re.findall(r"\d\.\d+", row[3])
    assert figures and [figure for figure in figures if not any(figure in line for line in cells)] == []


@pytest.mark.parametrize("path", CONFIGS.values(), ids=CONFIGS)
def test_every_command_of_a_config_is_one(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    found = [argv for command in of_docstring(text) for argv in commands(command)]
    assert [(argv, fault) for argv in found if (fault := complaint(argv, complete=False))] == []


def test_every_page_that_a_module_names_exists():
    modules = [*ROOT.glob("configs/*.py"), *ROOT.glob("scarce_jax/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    named = {(module, page) for module in modules for page in re.findall(r"\bdocs/[\w/]+\.md", module.read_text())}
    assert [(str(module.relative_to(ROOT)), page) for module, page in named if not (ROOT / page).exists()] == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# A `b`: c\n\n## Twice\n\n## Twice\n\n<a id='x'></a>\n\n<a id=\"y\"></a>\n")
    page = tmp_path / "page.md"
    right = ["other.md", "other.md#a-b-c", "other.md#twice-1", "other.md#y", "#page", "https://a.example/none", "."]
    wrong = ["none.md", "other.md#a-b", "other.md#twice-2", "#other", "none.png"]
    page.write_text("# Page\n\n" + " ".join(f"[x]({link})" for link in right + wrong) + "\n\n`[x](code.md)`\n")
    assert broken_links(page) == wrong
    page.write_text('<p><img src="none.png"></p>\n\n<!-- [x](comment.md) <img src="c.png"> -->\n![x](also.png)\n')
    assert broken_links(page) == ["none.png", "also.png"]
    assert list(links("```\n[x](a.md)\n```\n")) == [] and anchors("# One, *two*\n") == {"one-two"}


@pytest.mark.parametrize(
    "line",
    [
        "scarce-jax train detailer_scenes --compare --seed S",
        "scarce-jax train configs/detailer_scenes.py --no-compare --detailer.optim.lr=0.1",
        "scarce-jax train CONFIG --pnet.steps 3 | tee log  # a comment",
        "scarce-jax train my.py --cams.confidence 0.5",
        ".venv/bin/pip install x && .venv/bin/scarce-jax train supervised_scenes --segmenter.net tiny",
        "scarce-jax sweep CONFIG --over paper.TABLE --workdir DIR",
        "scarce-jax benchmark CONFIG [--mode train|infer] [--target GPU]",
        "scarce-jax predict RUN PATH... --out DIR --scales 0.5,1 --crf irn",
        "scarce-jax train CONFIG --STAGE.init-from FILE --STAGE.net.backbone resnet",
        "scarce-jax prepare folder/mine --source PHOTOS; scarce-jax --version",
    ],
)
def test_a_right_command_passes(line):
    assert len(list(commands(line))) == line.count("scarce-jax ")
    assert faults(f"```\n{line}\n```\n") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("scarce-jax trian detailer_scenes", "did you mean train?"),
        ("scarce-jax train detailer_scene", "detailer_scene"),
        ("scarce-jax train configs/none.py", "no such file"),
        ("scarce-jax train detailer_scenes --sede 1", "--sede"),
        ("scarce-jax train detailer_scenes --seed one", "--seed"),
        ("scarce-jax train detailer_scenes --seed -1", "--seed -1: expected"),
        ("scarce-jax train detailer_scenes --detailer.optm.lr 1", "--detailer.optm.lr"),
        ("scarce-jax train detailer_scenes --detailer.optim.lr -1", "expected a number above 0"),
        ("scarce-jax train supervised_scenes --segmenter.net tinny", "did you mean tiny?"),
        ("scarce-jax train consistency_scenes --compare", "--compare True"),
        ("scarce-jax train CONFIG --nothing.at.all 1", "--nothing.at.all"),
        ("scarce-jax train detailer_scenes --dataset scens", "no dataset 'scens'"),
        ("scarce-jax sweep detailer_scenes --over budget.fin=1,2 --workdir DIR", "budget.fin"),
        ("scarce-jax sweep detailer_cityscapes --over paper.table_9 --workdir DIR", "table_9"),
        ("scarce-jax evaluate RUN --crf nobody", "--crf nobody"),
        ("scarce-jax prepare voc/animal --source VOC", "voc/animal"),
        ("scarce-jax report RUN --result", "--result"),
        ("pip install x && scarce-jax check --sources PHOTOS", "--sources"),
    ],
)
def test_a_wrong_command_is_found(line, said):
    (fault,) = faults(f"text\n\n```\n{line}\n```\n")
    assert said in fault


def test_a_mention_may_leave_out_what_a_command_needs():
    assert (
        faults("`scarce-jax predict RUN IMAGES --flip`, `scarce-jax report`, `auxiliary_scenes.py --compare`\n") == []
    )
    assert len(faults("`scarce-jax predict RUN --flop`, `scarce-jax reports`, `auxiliary_scenes.py --compere`\n")) == 3
    assert faults("`expected what scarce-jax train made`\n") == []
    assert len(faults("| a |\n|---|\n| `scarce-jax replay RUN --mode a\\|b` |\n")) == 1


def test_a_page_may_add_a_field_to_a_config():
    page = (
        "```python\nclass Config(Experiment):\n    penalty: float = 0.1\n```\n\n`scarce-jax train mine.py --penalty 0.2"
    )
    assert faults(f"{page} --seed 1`\n") == []
    assert len(faults(f"{page} --sede 1`\n")) == len(faults(f"{page.replace('mine.py', 'detailer_scenes')}`\n")) == 1


def test_commands_in_docstrings_end_where_their_sentences_do():
    text = (
        "Command: scarce-jax prepare voc; scarce-jax train a [--reuse RUN of b]\nOf: scarce-jax predict RUN\n--out X."
    )
    right = ["scarce-jax prepare voc", "scarce-jax train a [--reuse RUN", "scarce-jax predict RUN --out X"]
    assert of_docstring(text) == right


def test_pages_are_found():
    assert len(METHODS) == 5
    assert {"README.md", "docs/papers.md", "docs/results/index.md", "benchmarks/gpu/README.md"} <= set(names)
    assert all(isinstance(page, pathlib.Path) for page in PAGES)
