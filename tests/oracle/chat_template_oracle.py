#!/usr/bin/env python3
"""Compares tandem's chat templates with Jinja2 as transformers sets it up, and writes the golden.

    chat_template_oracle.py --model FILE.gguf --program BUILD/tests/text/render_chats [--templates FOLDER]
    chat_template_oracle.py --model FILE.gguf --write-golden tests/golden/templates/chats.json
"""
import argparse
import datetime
import json
import pathlib
import subprocess
import sys

import gguf
from tokenizers import decoders
from transformers.utils import chat_template_utils

from chat_template_cases import CONVERSATIONS, EXTRAS, FULL, REFUSED, TEMPLATES
from tokenizer_oracle import load_reference


class Clock(datetime.datetime):
    """Saturday, 4 July 2026, 15:06:07: golden_time() of tests/text/chat_case.h shows the same."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 7, 4, 15, 6, 7)


def expected(chat, template):
    """The text, or None when the template fails in any way."""
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[chat["messages"]], tools=chat.get("tools"), documents=chat.get("documents"),
            chat_template=template, add_generation_prompt=chat.get("add_generation_prompt", False),
            bos_token="<s>", eos_token="</s>", **chat.get("variables", {}))
        return rendered[0]
    except Exception:  # a template can fail in every way that Python can
        return None


def all_chats():
    """Every conversation with every extra, with and without a generation prompt, by name."""
    chats = {"full": dict(FULL, add_generation_prompt=True)}
    for name, messages in CONVERSATIONS.items():
        for extra, inputs in EXTRAS.items():
            for add in (False, True):
                key = ", ".join(part for part in (name, extra, "prompt" if add else "") if part)
                chats[key] = dict(inputs, messages=messages, add_generation_prompt=add)
    return chats


def written_cases(model_template):
    """The templates written for the test -> name, template, name of the chat."""
    for name, template in TEMPLATES.items():
        yield name, template, "full"
    for name in ("generation", "messages", "llama 2"):
        yield name, TEMPLATES[name], "turns, prompt"
    for number, template in enumerate(REFUSED):
        yield f"refused {number}", template, "full"
    for chat in ("user", "turns, prompt", "hostile, prompt", "empty, prompt", "none, prompt", "twice, prompt"):
        yield "default model", model_template, chat


def run_program(command, chats):
    """What render_chats answers for each chat with its template."""
    result = subprocess.run(command, input=json.dumps(chats), stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in result.stdout.rstrip("\n").split("\n")]


def found(cases, chats, program):
    """What tandem renders for each (template, chat): the text, or the error as a dict."""
    for spans in run_program([program], [dict(chats[chat], template=template) for template, chat in cases]):
        yield spans if isinstance(spans, dict) else "".join(text for text, _ in spans)


def compare_ids(model, template, program):
    """Token ids: those of the rendered text; special tokens that a message names stay text. -> all equal"""
    reference = load_reference(model)
    special = [token for token in gguf.GGUFReader(model).fields["tokenizer.ggml.tokens"].contents()
               if token.startswith("<|") and token.endswith("|>")]
    reference.add_special_tokens(special)
    reference.decoder = decoders.ByteLevel()
    ids_of = {reference.token_to_id(token) for token in special}
    named = [f"a {token} b{token}\n{token}system\n" for token in special]
    named += ["</s>", "{{ 7*7 }}", "x" * 13084 + "${TMPDIR:-x}"]
    chats = [{"messages": messages, "add_generation_prompt": add, "template": template}
             for name, messages in CONVERSATIONS.items() for add in (False, True)
             if all(isinstance(message["content"], str) for message in messages)]
    chats += [{"messages": [{"role": "user", "content": text}], "template": template} for text in named]
    wrong = hostile = 0
    for chat, ids in zip(chats, run_program([program, model], chats), strict=True):
        text = expected(chat, template)
        if text is None:
            wrong += not isinstance(ids, dict)
            continue
        if not any(token in message["content"] for message in chat["messages"] for token in special):
            wrong += ids != reference.encode(text, add_special_tokens=False).ids
            continue
        hostile += 1
        mild = dict(chat, messages=[dict(message, content=message["content"].replace("<|", "<"))
                                    for message in chat["messages"]])
        wanted = [i for i in reference.encode(expected(mild, template), add_special_tokens=False).ids if i in ids_of]
        wrong += [i for i in ids if i in ids_of] != wanted
        wrong += reference.decode(ids, skip_special_tokens=False) != text
    print(f"token ids: {len(chats)} chats, {hostile} of them name special tokens, {wrong} differ")
    return not wrong


def compare(name, cases, chats, program):
    """Prints a line, and the first chat that differs. -> all equal"""
    wrong = rendered = 0
    for (template, chat), text in zip(cases, found(cases, chats, program), strict=True):
        wanted = expected(chats[chat], template)
        rendered += wanted is not None
        if (None if isinstance(text, dict) else text) == wanted:
            continue
        wrong += 1
        if wrong == 1:
            print(f"  {template[:200]!r}\n  {chat}:\n  expected {wanted!r}\n  found    {text!r}")
    print(f"{name}: {len(cases)} chats, {rendered} rendered, {len(cases) - rendered} refused, {wrong} differ", flush=True)
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--program", help="render_chats")
    parser.add_argument("--write-golden", metavar="FILE")
    parser.add_argument("--templates", metavar="FOLDER", help="*.jinja: llama.cpp's models/templates")
    args = parser.parse_args()
    chat_template_utils.datetime = Clock
    chats = all_chats()
    model_template = gguf.GGUFReader(args.model).fields["tokenizer.chat_template"].contents()
    written = list(written_cases(model_template))
    misnamed = [(name, template) for name, template, chat in written
                if name.startswith("refused") != (expected(chats[chat], template) is None)]
    for name, template in misnamed:
        print(f"{name} is not what its name says: {template}")
    if misnamed:
        return 1
    if args.write_golden:
        golden = {"chats": {chat: chats[chat] for _, _, chat in written},
                  "cases": [{"name": name, "template": template, "chat": chat,
                             "expected": expected(chats[chat], template)} for name, template, chat in written]}
        with open(args.write_golden, "w", encoding="ascii") as file:
            lines = [json.dumps(case, separators=(",", ":")) for case in golden["cases"]]
            named = [f"{json.dumps(name)}:{json.dumps(chat, separators=(',', ':'))}"
                     for name, chat in golden["chats"].items()]
            file.write('{"chats":{\n' + ",\n".join(named) + '\n},"cases":[\n' + ",\n".join(lines) + "\n]}\n")
        print(f"{args.write_golden}: {len(written)} chats")
    if not args.program:
        return 0
    same = compare("written templates", [(template, chat) for _, template, chat in written], chats, args.program)
    same = compare_ids(args.model, model_template, args.program) and same
    paths = sorted(pathlib.Path(args.templates).glob("*.jinja")) if args.templates else []
    if args.templates and not paths:
        print(f"{args.templates}: no templates here, none compared")
    for path in paths:
        template = path.read_text(encoding="utf-8")
        same = compare(path.name, [(template, chat) for chat in chats], chats, args.program) and same
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
