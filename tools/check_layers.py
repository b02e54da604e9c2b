#!/usr/bin/python3
"""Fails on an include that the table of rooms does not allow.

usage: check_layers.py [SOURCE_FOLDER]      default: src/ beside this folder

The table is the one in SOURCE_FOLDER/README.md: | room | ... | may include |. Every room may include
itself, `base` and `tensor` (which come first), and the rooms that its row names.
"""
import pathlib
import re
import sys

GROUND = ("base", "tensor")  # open to every room above them
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SOURCES = {".h", ".cpp", ".cu", ".cuh"}


def parse_table(readme):
    """Rooms in order -> the set each may include. Raises ValueError on a table that is not one."""
    allowed = {}
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3:
            continue
        room, _, names = cells
        if room == "room" or set(room) <= {"-", ":"}:
            continue
        may = set() if names == "-" else {name.strip() for name in names.split(",")}
        unknown = may - set(allowed)
        if unknown:
            raise ValueError(f"row '{room}' allows {sorted(unknown)}, which are not rooms above it")
        allowed[room] = may | {room} | {ground for ground in GROUND if ground in allowed}
    if not allowed:
        raise ValueError("no table '| room | what | may include |' found")
    return allowed


def check(source_folder):
    """Returns the list of violations, each 'file:line: sentence'."""
    allowed = parse_table((source_folder / "README.md").read_text(encoding="utf-8"))
    found = []
    folders = {path.name for path in source_folder.iterdir() if path.is_dir()}
    found += [f"{source_folder / name}: a room without a row in README.md" for name in sorted(folders - set(allowed))]
    found += [f"{source_folder / 'README.md'}: row '{name}' has no folder" for name in sorted(set(allowed) - folders)]
    for path in sorted(source_folder.glob("*/**/*")):
        room = path.relative_to(source_folder).parts[0]
        if path.suffix not in SOURCES or room not in allowed:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1).split("/")[0]
            where = f"{path}:{number}: {room} includes \"{match.group(1)}\""
            if "/" not in match.group(1):
                if not match.group(1).endswith("_generated.h"):
                    found.append(f"{where}: spell it from src/, as \"room/file.h\"")
            elif target not in allowed:
                found.append(f"{where}: '{target}' is not a room")
            elif target not in allowed[room]:
                found.append(f"{where}: {room} may include only {', '.join(sorted(allowed[room]))}")
    return found


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "src"
    source_folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    try:
        violations = check(source_folder)
    except (OSError, ValueError) as error:
        violations = [f"{source_folder}: {error}"]
    for violation in violations:
        print(violation, file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
