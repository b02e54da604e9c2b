"""The layer check finds what it should find, and this repository passes it."""
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import check_layers  # noqa: E402

TABLE = """# The rooms

| room | what | may include |
| --- | --- | --- |
| base | errors | - |
| tensor | numbers | base |
| formats | files | - |
| model | a model | formats |
"""


def make_tree(folder, files, table=TABLE):
    (folder / "README.md").write_text(table)
    for room in ("base", "tensor", "formats", "model"):
        (folder / room).mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return check_layers.check(folder)


def test_this_repository_passes():
    assert check_layers.check(ROOT / "src") == []


def test_allowed_arrows_pass(tmp_path):
    text = '#include <vector>\n#include "base/error.h"\n#include "tensor/a.h"\n#include "formats/b.h"\n'
    assert make_tree(tmp_path, {"model/m.cpp": text + '#include "model/m.h"\n'}) == []


@pytest.mark.parametrize("name, include, expected", [
    ("formats/f.h", '#include "model/m.h"', "formats may include only base, formats, tensor"),
    ("base/e.cpp", '#include "tensor/t.h"', "base may include only base"),
    ("model/deep.cuh", '  #  include "kernels/k.h"', "'kernels' is not a room"),
    ("model/m.cpp", '#include "m.h"', 'spell it from src/'),
])
def test_an_arrow_outside_the_table_is_named(tmp_path, name, include, expected):
    violations = make_tree(tmp_path, {name: "// head\n" + include + "\n"})
    assert len(violations) == 1
    assert violations[0].startswith(f"{tmp_path / name}:2: ")
    assert expected in violations[0]


def test_files_in_subfolders_are_read(tmp_path):
    (tmp_path / "formats" / "gguf").mkdir(parents=True)
    (tmp_path / "formats" / "gguf" / "x.cpp").write_text('#include "model/m.h"\n')
    (tmp_path / "README.md").write_text(TABLE)
    for room in ("base", "tensor", "model"):
        (tmp_path / room).mkdir()
    assert len(check_layers.check(tmp_path)) == 1


def test_rooms_and_rows_must_match(tmp_path):
    (tmp_path / "extra").mkdir()
    violations = make_tree(tmp_path, {})
    assert violations == [f"{tmp_path / 'extra'}: a room without a row in README.md"]


def test_a_row_may_not_point_down(tmp_path):
    with pytest.raises(ValueError, match="not rooms above"):
        make_tree(tmp_path, {}, TABLE.replace("| formats | files | - |", "| formats | files | model |"))


def test_no_table_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no table"):
        make_tree(tmp_path, {}, "# nothing here\n")
