"""Renders a chat template that nobody vouches for, in a process of its own that may use little memory and little time.

:mod:`rlx.data.chat` starts this file as a program. It imports Jinja and nothing of this package. Requests and answers
are JSON behind four bytes of length: first ``{"path", "template", "memory", "output", "seconds"}``, then any number
of ``{"messages", "add_generation_prompt", "variables"}``; an answer is ``{"text"}`` or ``{"error", "kind"}``.

The environment is that of Hugging Face's ``apply_chat_template``: sandboxed, values cannot be changed, blocks take no
line of their own, ``break`` and ``continue``, ``raise_exception``, ``strftime_now``, ``tojson`` without HTML escapes.
"""

import datetime
import json
import math
import os
import struct
import sys
from typing import Any, BinaryIO

LENGTH = struct.Struct("<I")
SHOWN = 300  # characters of an error


def receive(file: BinaryIO) -> Any:
    """The next message, None at the end."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(file.read(LENGTH.unpack(head)[0]))


def send(file: BinaryIO, message: Any) -> None:
    """Writes a message."""
    content = json.dumps(message).encode()
    file.write(LENGTH.pack(len(content)) + content)
    file.flush()


def confine(memory: int) -> None:
    """No more than ``memory`` bytes of address space, no files written, no core dump; as far as the system can."""
    try:
        import resource
    except ImportError:  # no such limits here: the time and the sandbox remain
        return
    for name, value in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (ValueError, OSError):
            continue


def more_time(seconds: float) -> None:
    """The process dies after this much more work, rounded up, even if its parent is gone."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds), hard))


def environment() -> Any:
    """Jinja as Hugging Face sets it up."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks what the assistant says; here it changes nothing."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

        def _inside(self, caller: Any) -> Any:
            return caller()

    class Namespace(jinja2.utils.Namespace):
        """Without names that begin with an underscore."""

        def __init__(*args: Any, **attributes: Any):
            self, *rest = args
            values = dict(*rest, **attributes)
            for name in values:
                _public(name)
            jinja2.utils.Namespace.__init__(self, values)

        def __setitem__(self, name: Any, value: Any) -> None:
            _public(name)
            super().__setitem__(name, value)

    def _public(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace takes no name with an underscore: {name!r}")

    def raise_exception(message: Any) -> None:
        raise jinja2.exceptions.TemplateError(message)

    extensions = [Generation, jinja2.ext.loopcontrols]
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    made.filters["tojson"] = _tojson
    made.globals |= {"raise_exception": raise_exception, "strftime_now": _now, "dict": Dict(), "namespace": Namespace}
    return made


class Dict:
    """``dict`` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        """As that of ``dict``."""
        return dict.fromkeys(*args)


def _tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    """The time, or that of SOURCE_DATE_EPOCH: prompts that name a day can be had again on another."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now() if not epoch else datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    return now.strftime(form)


def render(template: Any, request: dict, bound: int) -> dict:
    """The answer to a request."""
    words = {"tools": None, "documents": None, "add_generation_prompt": request["add_generation_prompt"]}
    text = template.render(messages=request["messages"], **words, **request["variables"])
    if len(text) > bound:
        return {"error": f"it writes {len(text)} characters, more than {bound}", "kind": "size"}
    text.encode()  # half a surrogate pair cannot leave
    return {"text": text}


def failure(error: BaseException) -> dict:
    """What an error says; ``kind`` tells a want of memory from words of the template's own."""
    kind = "memory" if isinstance(error, MemoryError) else "raised"
    name = "" if type(error).__name__ == "TemplateError" else f"{type(error).__name__}: "
    try:
        said = str(error)[:SHOWN]
    except Exception:  # an error may hold anything
        said = ""
    return {"error": name + said.encode("utf-8", "replace").decode(), "kind": kind}


def main() -> None:
    """Reads a template, then renders until the input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    setup = receive(requests)
    sys.path[:] = setup["path"]
    template = None
    try:
        made = environment()
        confine(setup["memory"])
        more_time(setup["seconds"])
        template = made.from_string(setup["template"])
        send(answers, {"text": ""})
    except BaseException as error:  # whatever a template makes Python's or Jinja's compiler say
        send(answers, {**failure(error), "line": getattr(error, "lineno", None)})
    while (request := receive(requests)) is not None:
        more_time(setup["seconds"])
        try:
            answer = render(template, request, setup["output"])
        except BaseException as error:  # MemoryError and RecursionError among them
            answer = failure(error)
        send(answers, answer)


if __name__ == "__main__":
    main()
