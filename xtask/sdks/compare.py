"""Reads every hand-written case with the vendor's own library and with ours, and compares.

`compare.py DECODE CASES DIFFERENCES [CASE…]`: the program that reads an answer our way, the folder of cases, and
the file that lists in which cases the two differ, in what, and why. A difference that is not listed is a failure,
and so is a listed one that is none any more. With names of cases (`openai_chat/text`), both readings are shown.
"""

import json
import os
import pathlib
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

import read_anthropic
import read_google
import read_openai
from replay import replayed

# Folder of cases: the wire's name, the library's reading, and how it tells of errors.
WIRES = {
    "anthropic": ("anthropic", read_anthropic.messages, read_anthropic.failure),
    "gemini": ("gemini", read_google.contents, read_google.failure),
    "openai_chat": ("openai-chat", read_openai.chat, read_openai.failure),
    "openai_responses": ("openai-responses", read_openai.responses, read_openai.failure),
}
FIELDS = (
    "text",
    "refusal",
    "reasoning_text",
    "tool_calls",
    "other_items",
    "finish_reason_raw",
    "response_id",
    "usage",
)
READERS = 4


def main(decode, cases_folder, differences_file, *shown):
    cases = load(pathlib.Path(cases_folder))
    listed = listed_differences(tomllib.loads(pathlib.Path(differences_file).read_text()))
    names = sorted(shown or cases)
    with replayed(cases) as url, ThreadPoolExecutor(READERS) as readers:
        both = list(readers.map(lambda name: read(decode, url, name, cases[name]), names))
    wrong = []
    for name, (ours, theirs) in zip(names, both):
        found, known = set(differences(ours, theirs)), listed.get(name, set())
        if shown:
            print(json.dumps({"case": name, "ours": ours, "theirs": theirs, "differ": sorted(found)}, indent=1))
        for field in sorted(found - known):
            wrong.append(f"{name}: {field} differs: ours {told(ours, field)}, theirs {told(theirs, field)}")
        for field in sorted(known - found):
            wrong.append(f"{name}: {field} is listed as different and is not: take it off the list")
    if not shown:
        wrong.extend(f"{name}: is listed and is no case" for name in sorted(set(listed) - set(cases)))
    print("\n".join(wrong))
    differ = sum(1 for name in names if name in listed)
    print(f"{len(names)} cases: {len(names) - differ} read alike, {differ} with listed differences, {len(wrong)} wrong")
    return 1 if wrong else 0


def load(folder):
    files = [path for wire in WIRES for path in (folder / wire).glob("*.json")]
    return {f"{path.parent.name}/{path.stem}": json.loads(path.read_text()) for path in files}


def listed_differences(groups):
    listed = {}
    for group in groups.get("differ", []):
        for name in group["cases"]:
            listed.setdefault(name, set()).update(group["fields"])
    return listed


def read(decode, url, name, case):
    """Returns what we understood of a case, and what the library did."""
    api, library, failure = WIRES[name.split("/")[0]]
    base, streamed = f"{url}/{name}", case["response"]["streaming"]
    program = [decode, "--url", base, "--api", api, "--model", "test-model"]
    program += [] if streamed else ["--no-stream"]
    ours = subprocess.run(
        program, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "LONGHAUL_KEY": "test-key"}
    )
    try:
        theirs = library(base, streamed)
    except Exception as error:  # Whatever a library raises is how it tells of a failure.
        theirs = failure(error)
    return json.loads(ours.stdout), theirs


def differences(ours, theirs):
    """Names the fields that differ. Where either failed, nothing else is compared."""
    if ours["error"] or theirs.get("error"):
        same = bool(ours["error"]) and bool(theirs.get("error"))
        return [] if same and same_status(ours["error"], theirs["error"]) else ["error"]
    return [field for field in FIELDS if field in theirs and told(ours, field) != told(theirs, field)]


def same_status(ours, theirs):
    """Compares the status of a refusal. For an error within an answer, the libraries tell various numbers."""
    status = ours["http_status"]
    return status is None or status < 400 or status == theirs["http_status"]


def told(answer, field):
    """Returns a field in the form in which it is compared."""
    said = answer.get(field)
    if field == "error":
        return said and {name: it for name, it in said.items() if it is not None}
    if field == "reasoning_text":
        return "".join((said or "").split())
    if field == "usage":
        return {name: number for name, number in (said or {}).items() if number and name != "total_tokens"}
    if field == "tool_calls":
        return [call(it) for it in said or []]
    return said or None if field != "text" else said or ""


def call(said):
    arguments = said.get("arguments", said.get("args_text"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            pass
    # Where the wire has no id, we make one.
    made = (said["id"] or "").startswith("made_")
    return {"id": None if made else said["id"] or None, "name": said["name"], "arguments": arguments}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
